"""torchvision's second Faster R-CNN, SSD300 and SSDLite beside ours with the same parameters, on images of any size."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection.image_list import ImageList

from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.data.images.fitting import fit_image
from pyrafuse.heads.multibox import ssd_head
from pyrafuse.importers.torchvision.detectors import TORCHVISION
from pyrafuse.importers.torchvision.families import FAMILIES, FASTER_V2, SSD, SSDLITE

LIMITS, NUM_REGIONS = (96, 160), 60  # small, for the sake of time


@pytest.fixture(scope="module", params=[FASTER_V2, SSD, SSDLITE])
def pair(request):
    """An original with random parameters, statistics and scales, and ours with these."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, request.param)
    sizes = {"min_size": LIMITS[0], "max_size": LIMITS[1], "rpn_post_nms_top_n_test": NUM_REGIONS}
    original = build(weights=None, weights_backbone=None, **(sizes if request.param == FASTER_V2 else {})).eval()
    state = original.state_dict()
    {FASTER_V2: fill_faster_rcnn, SSD: fill_ssd, SSDLITE: fill_ssdlite}[request.param](state)
    assert TORCHVISION.recognizes(state)
    ours = TORCHVISION.build(state, source="x.pth").eval()
    if request.param == FASTER_V2:
        assert ours.card.preprocessing.size == (800, 1333)
        ours.card = replace(ours.card, preprocessing=replace(ours.card.preprocessing, size=LIMITS))
        ours.propose = replace(ours.propose, max_regions=NUM_REGIONS)
    return original, ours


def fill_faster_rcnn(state: dict[str, torch.Tensor]) -> None:
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
        elif "backbone.body" in key and key.endswith(("bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
            value.uniform_(0.2, 0.6)
        elif key.endswith(".1.weight") and value.ndim == 1:
            value.uniform_(0.5, 1.5)
        elif key.endswith(".1.bias"):
            value.uniform_(-0.2, 0.2)
        elif key.startswith("rpn.head") and value.ndim == 4:
            value.mul_(3)
        elif key.endswith("cls_score.weight"):
            value.mul_(10)


def fill_ssd(state: dict[str, torch.Tensor]) -> None:
    for key, value in state.items():
        if key == "backbone.scale_weight":
            value.uniform_(10, 30)
        elif value.ndim == 1:
            value.uniform_(-0.1, 0.1)
        elif "head" in key:  # scores and shifts that differ from box to box, and are not certain
            value.normal_(0, 0.5 * value[0].numel() ** -0.5)
        else:
            torch.nn.init.kaiming_normal_(value)
    state["backbone.features.0.weight"].div_(60)  # images have as much deviation
    for level in range(6):
        state[f"head.classification_head.module_list.{level}.bias"].view(-1, 91)[:, 0].add_(2)


def fill_ssdlite(state: dict[str, torch.Tensor]) -> None:
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
        elif "module_list" in key and key.endswith(".1.weight") and value.ndim == 4:
            value.normal_(0, 2 * value[0].numel() ** -0.5)
        elif value.ndim == 4:
            torch.nn.init.kaiming_normal_(value)
        elif key.endswith(".1.weight"):  # with norms of 1 so many layers make chaos of a grey level's rounding
            value.fill_(0.85)
    for level in range(6):
        state[f"head.classification_head.module_list.{level}.1.bias"].view(-1, 91)[:, 0].add_(4)


def image_of(height: int, width: int) -> np.ndarray:
    """Blots of all colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def count_missing(boxes, scores, labels, theirs) -> int:
    """How many of theirs are not among ours: same class, 0.1 px, 0.001 of score."""
    is_near = (boxes[:, None] - theirs["boxes"]).abs().amax(dim=2) < 0.1
    is_as_sure = (scores[:, None] - theirs["scores"]).abs() < 1e-3
    return int((~(is_near & is_as_sure & (labels[:, None] == theirs["labels"] - 1)).any(dim=0)).sum())


@torch.no_grad()
def test_an_image_that_needs_no_resizing(pair):
    original, ours = pair
    image = image_of(*(original.transform.fixed_size or (96, 144)))
    assert Fit.of(*image.shape[:2], ours.card.preprocessing).size == image.shape[:2]
    (theirs,) = original([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    (found,) = ours.predict(image, score=ours.postprocess.score)
    assert len(found) == len(theirs["scores"]) >= 50
    assert count_missing(found.boxes, found.scores, found.labels, theirs) <= 1


@torch.no_grad()
def test_an_image_that_is_resized(pair):
    original, ours = pair
    image = image_of(130, 73)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    (theirs,) = original([pixels])
    listed, _ = original.transform([pixels])
    fit = Fit.of(*image.shape[:2], ours.card.preprocessing)
    (found,) = ours.detect(listed.tensors, sizes=[fit.size])
    assert len(found) == len(theirs["scores"]) >= 50
    assert count_missing(fit.to_image(found.boxes), found.scores, found.labels, theirs) <= 1
    (found,) = ours.predict(image, score=ours.postprocess.score)
    # resized here to whole grey levels: some boxes fall on the other side of a threshold of suppression
    assert count_missing(found.boxes, found.scores, found.labels, theirs) <= len(theirs["scores"]) // 20


@pytest.mark.parametrize("size", [(71, 103), (130, 73), (97, 150), (200, 211)])
def test_images_become_the_same_input(pair, size):
    original, ours = pair
    image = image_of(*size)
    listed, _ = original.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])
    fitted, fit = fit_image(image, ours.card.preprocessing)
    images = normalize(ours.card.preprocessing, fitted[None], [fit.size])
    assert (images.shape, fit.size) == (listed.tensors.shape, listed.image_sizes[0])
    # ours are whole grey levels, and OpenCV's are within one of the exact ones
    std = torch.tensor(ours.card.preprocessing.std)
    assert ((images - listed.tensors).abs().amax(dim=(0, 2, 3)) * std < 1 / 255).all()


def test_what_the_card_and_the_tests_are(pair):
    card, test = pair[1].card, pair[1].postprocess
    assert (card.names[0], card.names[11], card.category_ids[-1], len(card.names)) == ("person", "unused 12", 90, 90)
    if card.model == "ssd300":
        assert (test.score, test.nms_iou, test.max_pairs_per_class, test.max_detections) == (0.01, 0.45, 400, 200)
        assert (test.max_per_level, test.max_pairs) == (0, 0)
    elif card.model == "ssdlite320":
        assert (test.score, test.nms_iou, test.max_pairs_per_class, test.max_detections) == (0.001, 0.55, 300, 300)
    else:
        assert (test.score, test.nms_iou, test.max_detections) == (0.05, 0.5, 100)


@pytest.mark.parametrize(
    ("name", "size", "sides", "strides"),
    [
        (SSD, 300, (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 128, 256)),
        (SSDLITE, 320, (20, 10, 5, 3, 2, 1), (16, 32, 64, 128, 256, 512)),
    ],
)
def test_anchors_of_ssd(name, size, sides, strides):
    theirs = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None).anchor_generator
    features = [torch.zeros(1, 1, side, side) for side in sides]
    (expected,) = theirs(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), features)
    changes = FAMILIES[SSD].changes["head"] if name == SSD else {"size": size, "clip": True}
    head = ssd_head(PyramidSpec((1,) * 6, strides), num_classes=1, **changes)
    torch.testing.assert_close(head(tuple(features)).grid.anchors, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_ssdlite_with_the_whole_tail_of_a_classifier():
    backbone = torchvision.models.mobilenet_v3_large(weights=None)
    original = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    state = {key: value for key, value in original.state_dict().items() if "features.1" not in key}
    for key, value in backbone.features.state_dict().items():
        number, rest = key.split(".", 1)
        if rest.startswith("block.") and number == "13" and not rest.startswith("block.0."):
            state[f"backbone.features.1.0.{rest.removeprefix('block.')}"] = value
        elif int(number) > 13:
            state[f"backbone.features.1.{int(number) - 13}.{rest}"] = value
    state["backbone.extra.0.0.0.weight"] = torch.zeros(256, 960, 1, 1)
    for branch in ("classification", "regression"):
        prefix = f"head.{branch}_head.module_list.1"
        for key in [key for key in state if key.startswith(prefix)]:
            shape = [960 if side == 480 else side for side in state[key].shape]
            state[key] = torch.zeros(shape)
    detector = TORCHVISION.build(state, source="x.pth")
    assert detector.backbone.features.channels == (672, 960)


def test_every_key_of_the_published_faster_rcnn(vectors):
    manifest = vectors.json(f"misc/manifest_tv_{FASTER_V2}.json")
    detector = TORCHVISION.build(vectors.state(manifest, 0.5), source="x.pth")
    published = vectors.json("misc/index_torchvision.json")[FASTER_V2]
    assert sum(p.numel() for p in detector.parameters()) + 4 * 1025 == published["params"]  # no box of the background
