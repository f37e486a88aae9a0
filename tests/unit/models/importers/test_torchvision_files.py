"""torchvision's files: what a name must tell, and what is damaged."""

import pytest
import torch

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.core.errors import CheckpointError
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers.registry import find_importer
from pyrafuse.models.importers.renaming import by_parts
from pyrafuse.models.importers.torchvision import FAMILIES, FASTER, NORM_EPS, RETINA, name_fpn
from pyrafuse.models.uninitialized import Uninitialized

BOXES = "roi_heads.box_predictor.bbox_pred"


def state_of(title: str) -> dict[str, torch.Tensor]:
    """A detector's parameters, all of them ones, under torchvision's names and without counters."""
    family = FAMILIES[title]
    with Uninitialized():
        detector = create_model(family.model, num_classes=3, backbone="resnet50", **family.options)
    from_resnet = {"backbone": ("backbone.body", name_resnet), "neck": ("backbone.fpn", name_fpn(detector.neck))}
    naming = by_parts({**from_resnet, **family.parts})
    state = {naming(key): torch.ones(()).expand(value.shape) for key, value in detector.state_dict().items()}
    if title == FASTER:  # the background has a box too, which nothing reads
        state |= {f"{BOXES}.weight": torch.ones(16, 1024), f"{BOXES}.bias": torch.ones(16)}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def states():
    return {title: state_of(title) for title in (RETINA, FASTER, "fcos_resnet50_fpn")}


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


@pytest.mark.parametrize("title", [RETINA, FASTER, "fcos_resnet50_fpn"])
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
