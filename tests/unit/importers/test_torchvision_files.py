"""torchvision's files: what a name must tell, and what is damaged."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.registry import find_importer
from pyrafuse.importers.torchvision.families import (
    FAMILIES,
    FASTER,
    FASTER_V2,
    NORM_EPS,
    RETINA,
    SSD,
    naming_of,
)
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized

BOXES = "roi_heads.box_predictor.bbox_pred"


def state_of(title: str) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them ones, under torchvision's names and without counters."""
    family = FAMILIES[title]
    with Uninitialized():
        detector = create_model(family.model, num_classes=3, backbone=family.backbone, **family.changes)
    naming = naming_of(family, detector)
    state = {naming(key): torch.ones(()).expand(value.shape) for key, value in detector.state_dict().items()}
    if title in (FASTER, FASTER_V2):  # the background has a box too, which nothing reads
        state |= {f"{BOXES}.weight": torch.ones(16, 1024), f"{BOXES}.bias": torch.ones(16)}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def states():
    return {title: state_of(title) for title in FAMILIES}


def build(state, source="x.pth", published=None):
    importer = find_importer(state)
    assert importer is not None
    return importer.build(state, source=source, published=published)


@pytest.mark.parametrize(
    ("source", "published", "added"),
    [
        ("retinanet_resnet50_fpn_coco-eeacb38b.pth", None, 0),
        ("x.pth", "retinanet_resnet50_fpn_coco", 0),
        ("x.pth", "retinanet_resnet50_fpn", NORM_EPS),
    ],
)
def test_the_name_tells_what_frozen_norms_add(states, source, published, added):
    backbone = build(states[RETINA], source, published).backbone
    norm = next(module for module in backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.running_var is not None
    assert (norm.running_var.double() + norm.eps - 1).tolist() == pytest.approx([added] * 64, abs=1e-6)


def test_what_nothing_tells_must_be_said(states):
    with pytest.raises(
        CheckpointError, match=r"what these add to the variance .*--as NAME .*retinanet_resnet50_fpn_co"
    ):
        build(states[RETINA])
    counted = {**states[RETINA], "backbone.body.bn1.num_batches_tracked": torch.zeros(())}
    assert build(counted).card.model == "retinanet"
    with pytest.raises(CheckpointError, match="is torchvision's fcos_resnet50_fpn, and 'm2det512' names another"):
        build(states["fcos_resnet50_fpn"], published="m2det512")


@pytest.mark.parametrize("title", [RETINA, FASTER, FASTER_V2, SSD, "fcos_resnet50_fpn"])
@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "missing: "), (torch.zeros(()), "of another shape: "), (torch.zeros(0, 256, 3, 3), "of ")],
)
def test_a_damaged_classifier_is_named(states, title, value, said):
    classifier = FAMILIES[title].classifier
    torn = {key: kept for key, kept in states[title].items() if key != classifier}
    torn |= {} if value is None else {classifier: value}
    with pytest.raises(CheckpointError, match=f"torchvision's {title}, but does not fit; {said}.*{classifier}"):
        build(torn, published=title)


def test_centerness_that_lacks_a_key_is_fcos_all_the_same(states):
    key = "head.regression_head.bbox_ctrness.weight"
    torn = {name: value for name, value in states["fcos_resnet50_fpn"].items() if name != key}
    with pytest.raises(CheckpointError, match=f"fcos_resnet50_fpn, but does not fit; missing: {key}$"):
        build(torn)


@pytest.mark.parametrize("value", [torch.zeros(()), torch.zeros(3)])
def test_boxes_of_regions_that_do_not_fit_are_named(states, value):
    torn = {**states[FASTER], f"{BOXES}.bias": value}
    with pytest.raises(CheckpointError, match=rf"of another shape: {BOXES}.bias is \(.*, needs \(12,\)$"):
        build(torn, published=FASTER)


@pytest.mark.parametrize(("title", "pretrained"), [(FASTER_V2, f"{FASTER_V2}_coco"), (SSD, f"{SSD}_coco")])
def test_any_number_of_classes_under_any_name(states, title, pretrained):
    for published in (None, title, pretrained):
        card = build(states[title], published=published).card
        assert (card.names, card.origin) == (("0", "1", "2"), f"torchvision's {title}, 3 classes")


def test_every_key_is_used_and_missing_ones_are_named(states):
    for title, key in ((FASTER_V2, "roi_heads.box_head.3.1.running_var"), (SSD, "backbone.scale_weight")):
        torn = {name: value for name, value in states[title].items() if name != key}
        torn["backbone.features.99.weight"] = torch.zeros(1)
        with pytest.raises(CheckpointError, match=f"{title}.*; missing: {key}; extra: backbone.features.99.weight$"):
            build(torn)


def test_ssds_background_comes_last(states):
    level = "head.classification_head.module_list.0"
    rows = torch.arange(16.0)  # 4 anchors, background and 3 classes of each
    head = build({**states[SSD], f"{level}.bias": rows}).head
    assert head.classes[0].bias.tolist() == [1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12]
