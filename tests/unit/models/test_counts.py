"""Options that count: what is no whole number, or too small, is refused by its name before anything runs."""

import re

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.models.factory import create_model
from pyrafuse.ops.coders import DeltaCoder
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.regions import Propose

COUNTS = ("max_detections", "max_per_level", "max_pairs", "max_pairs_per_class", "max_per_class", "max_candidates")
PLACES = [
    ("retinanet", "head", "num_convs", 0),
    ("ga_retinanet", "head", "num_convs", 0),
    ("fcos", "head", "num_convs", 0),
    ("atss", "head", "num_convs", 0),
    ("efficientdet_d0", "head", "num_convs", 0),
    ("faster_rcnn", "head", "num_convs", 0),
    ("faster_rcnn", "stages", "num_convs", 0),
    ("faster_rcnn", "stages", "num_layers", 0),
    ("faster_rcnn", "proposals", "max_per_level", 1),
    ("faster_rcnn", "proposals", "max_regions", 1),
    *(("retinanet", "postprocess", name, int(name == "max_candidates")) for name in COUNTS),
    ("faster_rcnn", "postprocess", "max_pairs", 0),
    ("yolov3_plain", "postprocess", "max_pairs_per_class", 0),
]


@pytest.mark.parametrize(("model", "place", "name", "least"), PLACES)
@pytest.mark.parametrize("value", ["too few", True, 2.0, "3"])
def test_no_count(model, place, name, least, value):
    value = least - 1 if value == "too few" else value
    said = f"{name} of the .*: expected int, got {re.escape(repr(value))}"
    if type(value) is int:
        said = f"{name} must be a whole number, {least} or more, got {value}"
    options = {"head": {name: value}} if place == "stages" else {name: value}
    with torch.device("meta"), pytest.raises(PyrafuseError, match=f"^{said}$"):
        create_model(model, num_classes=3, **{place: options})


@pytest.mark.parametrize("value", [0, 7, np.int64(7)])
def test_counts(value):
    check_count("num_convs", value)
    assert DensePostprocess(max_pairs=value, max_per_level=value).max_pairs == value
    assert Propose(DeltaCoder(), max_regions=value + 1).max_regions == value + 1
