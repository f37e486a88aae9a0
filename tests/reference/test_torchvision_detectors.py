"""torchvision's detectors beside ours with the same parameters: anchors, outputs and detections."""

import re

import pytest
import torch
import torchvision
from torchvision.models.detection.image_list import ImageList

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.torchvision.detectors import TORCHVISION
from pyrafuse.importers.torchvision.families import FASTER, FASTER_V2, RETINA

OLD = "retinanet_resnet50_fpn_coco-eeacb38b"


@pytest.fixture(scope="module", params=[RETINA, "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", OLD])
def pair(request):
    """An original with some parameters, and ours with these."""
    torch.manual_seed(0)
    name = request.param.split("_coco")[0]
    original = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None).eval()
    state = original.state_dict()
    for key, value in state.items():
        if key.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            value.uniform_(0.2, 0.6)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("bbox_reg.bias"):
            value.fill_(0.7 if "fcos" in request.param else 0.1)  # boxes without an area are dropped here, kept there
        elif "head" in key and value.ndim == 4 and "bbox_reg" not in key:
            value.mul_(3)
        elif key.endswith("cls_logits.bias"):
            value.fill_(-1.5)
    if request.param == OLD:
        for module in original.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0
                assert module.running_var is not None
                module.running_var.mul_(1e-3)  # for what is added to matter
                module.weight.data.mul_(0.03)
        state = age(state)
    assert TORCHVISION.recognizes(state)
    return original, TORCHVISION.build(state, source=f"{request.param}.pth").eval()


def age(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A RetinaNet's parameters under the names of before 2022, from frozen batch norms."""
    aged = {}
    for key, value in state.items():
        key = re.sub(r"(_blocks\.\d+)\.0\.", r"\1.", key)
        aged[re.sub(r"_head\.conv\.(\d+)\.0\.", lambda found: f"_head.conv.{2 * int(found[1])}.", key)] = value
    return {key: value for key, value in aged.items() if not key.endswith("num_batches_tracked")}


@torch.no_grad()
@pytest.mark.parametrize("size", [(160, 224), (96, 352)])
def test_outputs_and_detections(pair, size):
    original, ours = pair
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    features = list(original.backbone(images).values())
    outputs = original.head(features)
    anchors = original.anchor_generator(ImageList(images, [size]), features)
    predictions = ours(images)
    is_fcos = "bbox_ctrness" in outputs
    # FCOS's anchors say where the points are, and what distances are relative to
    torch.testing.assert_close(predictions.grid.anchors, anchors[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(predictions.classes, outputs["cls_logits"], rtol=1e-4, atol=1e-4)
    scale = (anchors[0][:, 2] - anchors[0][:, 0])[:, None] if is_fcos else 1
    torch.testing.assert_close(predictions.deltas, outputs["bbox_regression"] * scale, rtol=1e-4, atol=1e-4)
    counts = predictions.grid.counts
    split = {name: list(values.split(counts, dim=1)) for name, values in outputs.items()}
    (theirs,) = original.postprocess_detections(split, [list(anchors[0].split(counts))], [size])
    (found,) = ours.detect(images)
    assert len(found) == len(theirs["scores"]) > 20
    torch.testing.assert_close(found.scores, theirs["scores"], rtol=0, atol=1e-3)
    is_near = (found.boxes[:, None] - theirs["boxes"]).abs().amax(dim=2) < 0.1
    is_same = is_near & (found.labels[:, None] == theirs["labels"])
    assert (~is_same.any(dim=0)).sum() <= 1  # one may lie on the threshold of suppression


@torch.no_grad()
@pytest.mark.parametrize("source", [f"{FASTER}.pth", f"{FASTER}_coco-258fb6c6.pth"])
def test_two_stages(source):
    torch.manual_seed(0)
    original = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
    state = original.state_dict()
    for key, value in state.items():
        if key.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            value.uniform_(0.2, 0.6)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.startswith("rpn.head") and value.ndim == 4:
            value.mul_(3)
        elif "fpn.layer" in key:
            value.mul_(10)
        elif key.endswith("cls_score.weight"):
            value.mul_(20)
    if "coco" in source:
        for module in original.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0
        state = age(state)
        state = {re.sub(r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv.", key): value for key, value in state.items()}
    ours = TORCHVISION.build(state, source=source).eval()
    assert (ours.card.names[0], ours.card.names[11], ours.card.category_ids[-1]) == ("person", "unused 12", 90)
    size = (160, 224)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    features = original.backbone(images)
    listed = ImageList(images, [size])
    proposals, _ = original.rpn(listed, features)
    regions = ours(images).stages[0].regions
    assert regions.valid.sum() == len(proposals[0])
    torch.testing.assert_close(regions.boxes[regions.valid].sum(dim=0), proposals[0].sum(dim=0), rtol=1e-4, atol=1e-1)
    (theirs,), _ = original.roi_heads(features, proposals, [size])
    (found,) = ours.detect(images)
    assert len(found) == len(theirs["scores"]) > 20
    torch.testing.assert_close(found.scores, theirs["scores"], rtol=0, atol=1e-5)
    is_near = (found.boxes[:, None] - theirs["boxes"]).abs().amax(dim=2) < 0.1
    is_same = is_near & (found.labels[:, None] == theirs["labels"] - 1)
    assert (~is_same.any(dim=0)).sum() <= 1  # one may lie on the threshold of suppression


def test_the_card(pair):
    card = pair[1].card
    assert (card.preprocessing.fit, card.preprocessing.size, card.preprocessing.pad_multiple) == (
        "keep_ratio",
        (800, 1333),
        32,
    )
    assert len(card.names) == len(card.category_ids) == 91
    assert (card.names[1], card.names[90], card.names[12]) == ("person", "toothbrush", "unused 12")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"),
            "is fasterrcnn on another backbone than ResNet-50 of torchvision, which is not",
        ),
        (
            ("backbone.body.conv1.weight", "roi_heads.mask_head.0.0.weight"),
            "is maskrcnn on another backbone",
        ),
        (
            ("backbone.body.1.block.0.0.weight", "rpn.head.conv.0.0.weight"),
            "is fasterrcnn_mobilenet_v3_large_fpn or fasterrcnn_mobilenet_v3_large_320_fpn of torchvision, which is n",
        ),
    ],
)
def test_what_is_not_read(keys, message):
    state = {key: torch.zeros(1) for key in keys}
    assert TORCHVISION.recognizes(state)
    with pytest.raises(CheckpointError, match=message):
        TORCHVISION.build(state, source="some.pth")


def test_what_is_not_read_is_named(vectors):
    manifest = vectors.json(f"misc/manifest_tv_{FASTER_V2}.json")
    state = {key: torch.zeros(()).expand(shape) for key, shape in manifest}
    state["roi_heads.mask_head.0.0.weight"] = torch.zeros(())
    with pytest.raises(CheckpointError, match=r"some\.pth is maskrcnn_resnet50_fpn_v2 of torchvision, which is not"):
        TORCHVISION.build(state, source="some.pth")


def test_manifests(vectors, pair):
    name = pair[1].card.origin.split()[1].rstrip(",")
    if name == "retinanet_resnet50_fpn":
        pytest.skip("no manifest of the first RetinaNet")
    manifest = vectors.json(f"misc/manifest_tv_{name}.json")
    state = vectors.state(manifest, 0.5)
    frozen = {key: value for key, value in state.items() if "num_batches" not in key}
    detector = TORCHVISION.build({"model": frozen}, source="x")
    assert sum(p.numel() for p in detector.parameters()) == vectors.json("misc/index_torchvision.json")[name]["params"]
