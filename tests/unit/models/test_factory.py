"""Detectors by name, and what is said when that goes wrong."""

import json

import pytest
import torch

from pyrafuse.base.card import card_to_dict
from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.models.building import rebuild
from pyrafuse.models.checkpoint import card_from_dict
from pyrafuse.models.factory import create_model, list_models, list_parts

TINY = {"backbone": {"width": 0.25, "depths": (1, 1, 1, 1, 1)}, "necks": {"yolo_fpn": {"width": 1 / 8}}}


def test_the_card_tells_how_it_was_built():
    detector = create_model("yolov3", num_classes=3, **TINY)
    assert detector.card.model == "yolov3"
    spec = detector.card.spec
    assert spec.num_classes == detector.card.num_classes == 3
    assert (spec.backbone.name, spec.backbone.options["width"]) == ("darknet53", 0.25)
    assert spec.backbone.options["depths"] == (1, 1, 1, 1, 1)
    assert [(neck.name, neck.options["width"]) for neck in spec.necks] == [("yolo_fpn", 1 / 8)]


@pytest.mark.parametrize("name", [name for name in list_models() if name[-1] not in "12345" or name == "ssd512"])
def test_a_card_in_plain_values_builds_every_model_again(name):
    with torch.device("meta"):
        detector = create_model(name, num_classes=3)
        again = rebuild(card_from_dict(json.loads(json.dumps(card_to_dict(detector.card)))))
    assert again.card == detector.card
    assert again.postprocess == detector.postprocess
    shapes, expected = ({k: v.shape for k, v in d.state_dict().items()} for d in (again, detector))
    assert shapes == expected


@pytest.mark.parametrize("neck", ["fpn", "yolo_fpn", "pafpn", "bifpn", "nas_fpn", "dilated_encoder", "identity"])
@pytest.mark.parametrize("fusion", [(), ("sum_fusion",)])
def test_a_small_model_stays_small_whatever_its_neck(neck, fusion):
    with torch.device("meta"):
        detector = create_model("yolov3_small", num_classes=5, neck=(neck, *fusion))
    assert sum(p.numel() for p in detector.parameters()) < 7e6


def test_parts():
    parts = list_parts()
    assert parts["model"] == list_models()
    assert {"yolov3", "yolov3_asff", "yolov3_small", "yolov3_asff_small"} <= set(parts["model"])
    assert {"darknet53", "mobilenet_v2"} <= set(parts["backbone"])
    assert {"asff", "yolo_fpn"} <= set(parts["neck"])
    assert "yolov3" in parts["head"]


@pytest.mark.parametrize("name", ["yolov3_asf", "yolo3"])
def test_unknown_model(name):
    with pytest.raises(UnknownNameError, match=f"unknown model '{name}'; did you mean 'yolov3"):
        create_model(name)


@pytest.mark.parametrize("num_classes", [0, -1, "3", 2.5, None])
def test_no_classes(num_classes):
    with pytest.raises(PyrafuseError, match=f"^num_classes must be a whole number, 1 to 100,000, got {num_classes!r}$"):
        create_model("yolov3", num_classes=num_classes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 3}, "a detector has no 'depth'; choose from backbone, coder, criterion, decode, head"),
        ({"hed": {}}, "a detector has no 'hed'; did you mean 'head'"),
        ({"backbone": {"widht": 0.5}}, "the backbone darknet53 takes no option 'widht'; did you mean 'width'"),
        ({"head": {"anchor": 3}}, "the head yolov3 takes no option 'anchor'; did you mean 'anchors'"),
        ({"criterion": {"ignore": 0.5}}, "the criterion yolov3 takes no option 'ignore'; "),
        ({"criterion": {"assigner": {"ignore": 0.5}}}, "the assigner guided_anchor takes no option 'ignore'; "),
        ({"postprocess": {"iou": 0.5}}, "the selection suppression takes no option 'iou'; "),
        ({"neck": "fpn3", "necks": {}}, "unknown neck 'fpn3'"),
        ({"backbone": "resnet"}, "unknown backbone 'resnet'"),
        ({"necks": {"asff": {}}}, "options are given for asff, but the necks are yolo_fpn"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(PyrafuseError, match=said):
        create_model("yolov3", **{**TINY, **options})
