"""Any backbone under any neck or chain under any head: what the parts promise, they promise together."""

import random

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.models.factory import create_model
from pyrafuse.necks.registry import NECKS, create_neck
from pyrafuse.training.optimizing import create_optimizer
from pyrafuse.training.precision import spare
from pyrafuse.training.settings import OptimizerSettings

DPN = {
    "stem": 8,
    "stem_kernel": 3,
    "residual": 16,
    "bottleneck": 16,
    "groups": 4,
    "depths": (2, 1, 1, 2),
    "growth": (4, 8, 8, 16),
}
RFP = {
    "backbone": {"name": "resnet18", "width": 8},
    "neck": {"name": "fpn", "out_channels": 8, "num_levels": 4},
}
BACKBONES = {
    "darknet53": {"width": 0.125, "depths": (1, 1, 1, 1, 1)},
    "dpn92": DPN,
    "eca_mobilenet_v2": {"width": 0.25},
    "eca_resnet50": {"width": 8},
    "mobilenet_v3_large": {"width": 0.25},
    "recursive_fpn": RFP,
    "resnet18": {"width": 8},
    "timm/mobilenetv3_small_100": {},
    "vgg16": {"strides": (4, 8, 16)},
}
NECK_OPTIONS = {
    "afpn": {"out_channels": 8, "depth": 1},
    "ccfm": {"out_channels": 8, "depth": 1},
    "gather_distribute": {"out_channels": 8, "depth": 1, "num_attentions": 1},
    "rep_gfpn": {"out_channels": 8, "depth": 1},
    "bfp": {"out_channels": 8},
    "bifpn": {"out_channels": 8, "repeats": 1},
    "dilated_encoder": {"out_channels": 8},
    "dyhead": {"out_channels": 8, "num_blocks": 1},
    "fapn": {"out_channels": 8},
    "fpn": {"out_channels": 8},
    "fpn_carafe": {"out_channels": 8},
    "mlfpn": {"num_levels": 2, "channels": 32, "shallow_channels": 4, "deep_channels": 4},
    "nas_fpn": {"out_channels": 8, "stack": 1},
    "pafpn": {"out_channels": 8},
    "projection": {"out_channels": 8},
    "ssd_extra": {"out_channels": (16, 16), "strides": (2, 2), "paddings": (1, 1)},
    "yolo_fpn": {"width": 1 / 16},
}
CHAINS = (
    *((name,) for name in NECKS.names()),
    ("fpn", "asff"),
    ("fpn", "dyhead"),
    ("pafpn", "bfp"),
    ("bifpn", "sum_fusion"),
    ("yolo_fpn", "concat_fusion", "fpn"),
    ("mlfpn", "dilated_encoder"),
    ("identity", "pafpn"),
)
REGIONS = {
    "stages": {"head": {"channels": 8}, "sampler": {"number": 16}},
    "learning_proposals": {"max_per_level": 20, "max_regions": 20},
    "proposals": {"max_per_level": 20, "max_regions": 20},
}
DENSE = {"head": {"channels": 8, "num_convs": 1}}
MODELS = {
    "atss": DENSE,
    "ddod": DENSE,
    "fcos": DENSE,
    "ga_retinanet": DENSE,
    "retinanet": DENSE,
    "ddod_fcos": DENSE,
    "efficientdet_d0": {"head": {"num_convs": 1}},
    "ssd300": {},
    "ssdlite320": {},
    "m2det": {},
    "faster_rcnn": REGIONS,
    "libra_rcnn": REGIONS,
    "cascade_rcnn": REGIONS,
    "yolov3": {"head": {"adaption": False}},
    "yolov3_plain": {},
}


def draw_compositions(count: int, seed: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Each kind's parts in turn, each kind in an order of its own: with every part among them."""
    rng = random.Random(seed)
    models, backbones, chains = (rng.sample(list(parts), len(parts)) for parts in (MODELS, BACKBONES, CHAINS))
    return [(models[i % len(models)], backbones[i % len(backbones)], chains[i % len(chains)]) for i in range(count)]


def build(model, backbone, chain):
    torch.manual_seed(0)
    return create_model(
        model,
        num_classes=3,
        backbone={"name": backbone, **BACKBONES[backbone]},
        neck=chain,
        necks={name: NECK_OPTIONS[name] for name in chain if name in NECK_OPTIONS},
        **MODELS[model],
    )


# torchvision's own shape function of nms asks for its unknown count by an old name
@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "composition",
    list(enumerate(draw_compositions(len(CHAINS), seed=0))),
    ids=lambda c: f"{c[1][0]}-{c[1][1]}-{'+'.join(c[1][2])}",
)
def test_any_composition(composition, some_targets, decoding):
    index, (model, backbone, chain) = composition
    detector = build(model, backbone, chain)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    spec = detector.neck.features
    pyramid = detector.train().neck(detector.backbone(images))
    assert tuple(x.shape[1] for x in pyramid) == spec.channels
    assert model.startswith(("yolo", "ssd", "m2det")) or len(set(spec.channels)) == 1
    for x, stride in zip(pyramid, spec.strides, strict=True):
        if stride <= 32:
            assert tuple(x.shape[2:]) == (64 // stride, 96 // stride)

    losses = detector.criterion(detector(images, some_targets), some_targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    learning = [p for p in (*detector.backbone.parameters(), *detector.neck.parameters()) if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learning)
    assert any(p.grad.any() for p in detector.backbone.parameters())

    if index % 3:  # exporting takes most of the time, and is each part's own promise besides
        return
    image = images[:1]
    with torch.no_grad():
        program = torch.export.export(decoding(detector.eval()), (image,))
        exported, eager = program.module()(image), detector.decode(image)
    torch.testing.assert_close(exported.boxes, eager.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(exported.scores, eager.scores, rtol=1e-4, atol=1e-5)


def test_every_part_is_among_them():
    drawn = draw_compositions(len(CHAINS), seed=0)
    assert {name for name, _, _ in drawn} == set(MODELS)
    assert {name for _, name, _ in drawn} == set(BACKBONES)
    assert {name for _, _, chain in drawn for name in chain} == set(NECKS.names())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"neck": ["fpn", "fpm"]}, "unknown neck 'fpm'; did you mean 'fpn'"),
        (
            {"backbone": {"name": "resnet18", "width": 8, "strides": (4, 12)}},
            r"maps at strides 4, 8, 16, 32; \(4, 12\) were asked",
        ),
        ({"backbone": "timm/vit_tiny_patch16_224"}, r"strides \(16, .*choose a hierarchical"),
        (
            {"neck": ("fpn", "nas_fpn"), "necks": {"fpn": {"num_levels": 6}}},
            "NAS-FPN's cells were found for 5 levels, and 6 are read",
        ),
        ({"necks": {"fpn": {"num_levels": 2}}}, "cannot build the neck fpn: num_levels=2 is less than the 3 levels"),
        ({"neck": ("fpn", "bfp"), "necks": {"bfp": {"level": 7}}}, r"level must lie in 0\.\.4, got 7"),
    ],
)
def test_what_does_not_fit_is_explained(options, said):
    with torch.device("meta"), pytest.raises(PyrafuseError, match=said):
        create_model("atss", **{"backbone": {"name": "resnet18", "width": 8}, **options})


def test_a_recursive_pyramid_by_its_name():
    detector = create_model("retinanet", backbone={"name": "recursive_fpn", **RFP}, neck="identity", **DENSE)
    assert detector.neck.features == create_neck("identity", detector.backbone.features).features
    assert detector.backbone.features.strides == (8, 16, 32, 64)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_under_every_head_learns_in_half_precision(model, backbone, some_targets):
    detector = build(model, backbone, ("fpn",)).train()
    spare(detector)
    optimizer = create_optimizer(detector, OptimizerSettings(name="adamw"), lr=1e-3)
    before = {key: value.clone() for key, value in detector.named_parameters()}
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        predictions = detector(images, some_targets)
    sum(detector.criterion(predictions, some_targets).values()).backward()
    optimizer.step()
    assert all(value.isfinite().all() for value in detector.state_dict().values())
    assert any(
        not torch.equal(value, before[key]) for key, value in detector.backbone.named_parameters(prefix="backbone")
    )
    assert not any(0 in buffer.stride() for buffer in detector.buffers())  # no average could be written to it
