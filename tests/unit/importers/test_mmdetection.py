"""Dense detectors under mmdetection's names: told apart, read, and what does not fit named."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.mmdetection.dense import DENSE, name_detector
from pyrafuse.importers.mmdetection.families import DENSE as FAMILIES
from pyrafuse.models.describing import describe
from pyrafuse.models.factory import create_model

NAMES = {
    "GA-RetinaNet": "ga_retinanet_r18_caffe_fpn_1x_coco",
    "DDOD": "ddod_r18_fpn_1x_coco",
    "ATSS": "atss_r18_fpn_1x_coco",
    "FCOS": "fcos_r18_caffe_fpn_gn-head_1x_coco",
    "RetinaNet with NAS-FPN": "retinanet_r18_nasfpn_crop640_50e_coco",
    "RetinaNet": "retinanet_r18_fpn_1x_coco",
    "RetinaNet with norms of each level": "retinanet_r18_fpn_crop640_50e_coco",
    "Libra RetinaNet": "libra_retinanet_r18_fpn_1x_coco",
}
"""Of published files, by the title of each family."""
TINY = {
    "backbone": {"width": 8, "style": "pytorch"},
    "necks": {"fpn": {"out_channels": 16}},
    "head": {"channels": 16, "num_convs": 2},
}
CELLS = {**TINY, "necks": {"nas_fpn": {"out_channels": 16, "stack": 1}}}


def theirs_of(family, *, num_classes: int = 3):
    """A detector of ours, and its parameters under their names."""
    torch.manual_seed(0)
    changes = CELLS if family.model == "retinanet_nas_fpn" else TINY
    spec = describe(family.model, backbone="resnet18", **family.changes)
    detector = create_model(spec, num_classes=num_classes, **changes)
    naming = name_detector(detector, family).naming
    state = {naming(k): v for k, v in detector.state_dict().items() if not k.startswith("criterion.")}
    return detector, state, {"published": NAMES[family.title], **changes}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.title)
def test_there_and_back(family):
    detector, state, changes = theirs_of(family)
    assert DENSE.recognizes({"state_dict": state})
    found = DENSE.build({"meta": {}, "state_dict": state}, source="a.pth", **changes)
    assert found.card.model == family.model
    assert found.card.num_classes == 3
    assert found.card.names == ("0", "1", "2")
    origin = f"mmdetection checkpoint: {family.title} on ResNet-18, 3 classes; used as {NAMES[family.title]}"
    assert found.card.origin == origin
    expected = detector.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in found.state_dict().items())


def family_called(title: str):
    return next(f for f in FAMILIES if f.title == title)


def test_names_of_old():
    detector, state, changes = theirs_of(family_called("FCOS"))
    old = {key.replace("bbox_head.conv_", "bbox_head.fcos_"): value for key, value in state.items()}
    assert old.keys() != state.keys()
    found = DENSE.build(old, source="a.pth", **changes)
    assert torch.equal(found.head.classes.weight, detector.head.classes.weight)
    detector, state, changes = theirs_of(family_called("DDOD"))
    old = {key.replace(".conv.conv_offset.", ".conv_offset."): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert DENSE.build(old, source="a.pth", **changes).card.model == "ddod"


def test_the_last_of_repeated_convolutions_is_in_effect():
    detector, state, changes = theirs_of(family_called("RetinaNet with NAS-FPN"))
    for level in range(4):
        state[f"bbox_head.cls_convs.{level}.0.conv.weight"] = torch.zeros(16, 16, 3, 3)
    found = DENSE.build(state, source="a.pth", **changes)
    assert torch.equal(found.head.class_tower.convs[0].weight, detector.head.class_tower.convs[0].weight)


def test_biases_in_front_of_norms_are_read():
    _, state, changes = theirs_of(family_called("FCOS"))
    biases = {
        f"bbox_head.{tower}_convs.{i}.conv.bias": torch.full((16,), 3.0) for tower in ("cls", "reg") for i in (0, 1)
    }
    late = {**changes, "head": {**changes["head"], "distances": "scaled_relu"}}
    found = DENSE.build({**state, **biases}, source="a.pth", **late)
    assert (found.head.box_tower.convs[1].bias == 3).all()
    assert found.head.distances == "scaled_relu"


def test_a_plain_pyramid_under_the_head_of_nas_fpn():
    _, state, changes = theirs_of(family_called("RetinaNet with norms of each level"))
    found = DENSE.build(state, source="a.pth", **changes)
    (neck,) = found.card.spec.necks
    assert {
        "out_channels": 16, "norm": "batch_norm", "lateral_norm": False, "relu_before_extra": True
    }.items() <= neck.options.items()  # fmt: skip
    assert found.criterion.assigner.negative_iou == (0, 0.5)


def test_guided_checkpoints_are_trained_on_as_they_were():
    _, state, changes = theirs_of(family_called("GA-RetinaNet"))
    assert DENSE.build(state, source="a.pth", **changes).criterion.inverted_locations


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.pop("neck.fpn_convs.0.conv.bias"), "missing: neck.fpn_convs.0.conv.bias"),
        (lambda s: s.update({"neck.more": torch.zeros(1)}), "extra: neck.more"),
        (
            lambda s: s.update({"bbox_head.retina_reg.bias": torch.zeros(5)}),
            r"reg.bias is \(5,\), needs \(36,\)",
        ),
        (lambda s: s.update({"backbone.layer3.2.conv1.weight": torch.zeros(1)}), "with 3 blocks in its third stage"),
        (lambda s: [s.pop(k) for k in list(s) if "retina" in k], "is not of mmdetection 2.x and 3.x .*: RetinaNet: "),
    ],
)
def test_what_does_not_fit_is_named(spoil, said):
    _, state, changes = theirs_of(family_called("RetinaNet"))
    spoil(state)
    with pytest.raises(CheckpointError, match=f"a.pth .*{said}"):
        DENSE.build(state, source="a.pth", **changes)


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("GA-RetinaNet", "bbox_head.conv_loc.weight"),
        ("GA-RetinaNet", "bbox_head.retina_cls.weight"),
        ("DDOD", "bbox_head.atss_iou.weight"),
        ("DDOD", "bbox_head.atss_cls.weight"),
        ("ATSS", "bbox_head.atss_centerness.weight"),
        ("FCOS", "bbox_head.conv_centerness.weight"),
        ("FCOS", "bbox_head.conv_cls.weight"),
        ("RetinaNet with NAS-FPN", "bbox_head.cls_convs.0.0.bn.weight"),
        ("RetinaNet", "bbox_head.retina_cls.weight"),
        ("RetinaNet", "backbone.layer1.0.conv2.weight"),
    ],
)
def test_a_missing_key_of_the_head_is_named(title, key):
    _, state, changes = theirs_of(family_called(title))
    del state[key]
    assert DENSE.recognizes(state)
    with pytest.raises(CheckpointError, match=f"fit; missing: {key}$"):
        DENSE.build(state, source="a.pth", **changes)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("bbox_head.retina_cls.weight", ()),
        ("bbox_head.retina_cls.weight", (27,)),
        ("bbox_head.retina_cls.weight", (8, 16, 3, 3)),
        ("backbone.layer1.0.conv2.weight", (8,)),
        ("backbone.layer1.0.conv2.weight", (8, 0, 3, 3)),
        ("backbone.layer1.0.conv2.weight", (8, 3, 3, 3)),
    ],
)
def test_a_damaged_key_is_named(key, shape):
    _, state, changes = theirs_of(family_called("RetinaNet"))
    with pytest.raises(CheckpointError, match=f"of another shape: {key}"):
        DENSE.build({**state, key: torch.zeros(shape)}, source="a.pth", **changes)


def test_repeated_convolutions_are_those_of_its_levels_and_of_one_shape():
    _, state, changes = theirs_of(family_called("RetinaNet with NAS-FPN"))
    key = "bbox_head.cls_convs.3.0.conv.weight"
    with pytest.raises(CheckpointError, match=rf"fit; of another shape: {key} is \(\), needs \(16, 16, 3, 3\)$"):
        DENSE.build({**state, key: torch.zeros(())}, source="a.pth", **changes)
    for extra in ("bbox_head.cls_convs.7.0.conv.weight", "bbox_head.cls_convs.1.9.conv.weight"):
        with pytest.raises(CheckpointError, match=f"fit; extra: {extra}$"):
            DENSE.build({**state, extra: torch.zeros(1)}, source="a.pth", **changes)


@pytest.mark.parametrize(
    "content", [None, {}, {"a": torch.zeros(1)}, {"backbone.layer1.0.conv1.weight": torch.zeros(1)}]
)
def test_what_is_none(content):
    assert not DENSE.recognizes(content)
