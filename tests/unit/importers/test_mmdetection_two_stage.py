"""mmdetection's two-stage checkpoints: which one it is, what does not fit."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.mmdetection_two_stage import (
    import_mmdetection_two_stage,
    looks_like_mmdetection_two_stage,
    name_two_stage,
)
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized

SMALL = {"backbone_options": {"width": 8}, "neck_options": {"fpn": {"out_channels": 8}}}
HEAD = {"region_options": {"channels": 8}}


def file_of(model: str, **options):
    """A checkpoint as mmdetection would have written it, and ours that it is of."""
    with Uninitialized():
        detector = create_model(model, num_classes=4, **{**HEAD, **options})
    for parameter in detector.parameters():
        torch.nn.init.normal_(parameter)
    naming, _ = name_two_stage(detector)
    return {"state_dict": {naming(key): value for key, value in detector.state_dict().items()}}, detector


SMALL_18 = {**SMALL, "backbone": "resnet18"}
GROUPED = {**SMALL, "backbone": "resnet50", "backbone_options": {"groups": 4, "base_width": 8}}
CASES = {
    "faster_rcnn": ("faster_rcnn", SMALL_18),
    "pafpn": ("faster_rcnn", {**SMALL_18, "neck": "pafpn", "neck_options": {"pafpn": {"out_channels": 8}}}),
    "libra_rcnn": ("libra_rcnn", SMALL_18),
    "cascade_rcnn": ("cascade_rcnn", SMALL_18),
    "resnext": ("faster_rcnn", GROUPED),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_tells_which_it_is(case):
    model, options = CASES[case]
    content, expected = file_of(model, **options)
    assert looks_like_mmdetection_two_stage(content)
    trunk = {key: value for key, value in options["backbone_options"].items() if key == "width"}
    told = {**HEAD, "neck_options": options["neck_options"], "backbone_options": trunk}
    detector = import_mmdetection_two_stage(content, source="x.pth", options=told)
    assert detector.card.model == model
    assert detector.card.options["num_classes"] == 4
    state = detector.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(state[key], value), key


def test_what_does_not_fit_is_named():
    content, _ = file_of("faster_rcnn", **SMALL_18)
    state = content["state_dict"]
    state["roi_head.mask_head.conv_logits.weight"] = torch.zeros(4, 8, 1, 1)
    del state["rpn_head.rpn_conv.bias"]
    options = {**SMALL, **HEAD}
    with pytest.raises(
        CheckpointError, match=r"Faster R-CNN.*missing: rpn_head\.rpn_conv\.bias.*extra: roi_head\.mask"
    ):
        import_mmdetection_two_stage(content, source="x.pth", options=options)
    with pytest.raises(CheckpointError, match=r"no two-stage detector .* Faster R-CNN, Libra R-CNN, Cascade R-CNN"):
        import_mmdetection_two_stage({"backbone.layer1.0.conv1.weight": torch.zeros(1)}, source="x.pth")


@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("faster_rcnn", "rpn_head.rpn_cls.weight"),
        ("faster_rcnn", "roi_head.bbox_head.fc_cls.weight"),
        ("cascade_rcnn", "roi_head.bbox_head.0.fc_cls.weight"),
        ("pafpn", "neck.downsample_convs.0.conv.weight"),
    ],
)
def test_a_missing_key_is_named(case, key):
    model, options = CASES[case]
    content, _ = file_of(model, **options)
    del content["state_dict"][key]
    assert looks_like_mmdetection_two_stage(content)
    told = {**HEAD, "neck_options": options["neck_options"], "backbone_options": {"width": 8}}
    with pytest.raises(CheckpointError, match=f"fit; missing: {key}$"):
        import_mmdetection_two_stage(content, source="x.pth", options=told)
    content["state_dict"][key] = torch.zeros(())
    with pytest.raises(CheckpointError, match=f"of another shape: {key} is"):
        import_mmdetection_two_stage(content, source="x.pth", options=told)
