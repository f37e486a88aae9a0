"""mmdetection's two-stage checkpoints: which one it is, what does not fit."""

import pytest
import torch

from pyrafuse.base.errors import CheckpointError
from pyrafuse.importers.mmdetection.two_stage import TWO_STAGE, name_two_stage
from pyrafuse.models.factory import create_model
from pyrafuse.models.uninitialized import Uninitialized

SMALL = {"backbone": {"width": 8}, "necks": {"fpn": {"out_channels": 8}}}
HEAD = {"stages": {"head": {"channels": 8}}}


def file_of(model: str, **changes):
    """A checkpoint as mmdetection would have written it, and ours that it is of."""
    with Uninitialized():
        detector = create_model(model, num_classes=4, **{**HEAD, **changes})
    for parameter in detector.parameters():
        torch.nn.init.normal_(parameter)
    naming = name_two_stage(detector).naming
    return {"state_dict": {naming(key): value for key, value in detector.state_dict().items()}}, detector


SMALL_18 = {**SMALL, "backbone": {"name": "resnet18", "width": 8}}
NAMES = {
    "faster_rcnn": "faster_rcnn_r18_fpn_1x_coco",
    "pafpn": "faster_rcnn_r18_pafpn_1x_coco",
    "libra_rcnn": "libra_faster_rcnn_r18_fpn_1x_coco",
    "cascade_rcnn": "cascade_rcnn_r18_fpn_1x_coco",
    "resnext": "faster_rcnn_x50_4x8d_fpn_1x_coco",
}
GROUPED = {**SMALL, "backbone": {"groups": 4, "base_width": 8}}
CASES = {
    "faster_rcnn": ("faster_rcnn", SMALL_18),
    "pafpn": ("faster_rcnn", {**SMALL_18, "neck": "pafpn", "necks": {"pafpn": {"out_channels": 8}}}),
    "libra_rcnn": ("libra_rcnn", SMALL_18),
    "cascade_rcnn": ("cascade_rcnn", SMALL_18),
    "resnext": ("faster_rcnn", GROUPED),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_tells_which_it_is(case):
    model, changes = CASES[case]
    content, expected = file_of(model, **changes)
    assert TWO_STAGE.recognizes(content)
    trunk = {key: value for key, value in changes["backbone"].items() if key == "width"}
    told = {**HEAD, "necks": changes["necks"], "backbone": trunk}
    detector = TWO_STAGE.build(content, source="x.pth", published=NAMES[case], **told)
    assert detector.card.model == model
    assert detector.card.num_classes == 4
    state = detector.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(state[key], value), key


def test_what_does_not_fit_is_named():
    content, _ = file_of("faster_rcnn", **SMALL_18)
    state = content["state_dict"]
    state["roi_head.mask_head.conv_logits.weight"] = torch.zeros(4, 8, 1, 1)
    del state["rpn_head.rpn_conv.bias"]
    with pytest.raises(
        CheckpointError, match=r"Faster R-CNN.*missing: rpn_head\.rpn_conv\.bias.*extra: roi_head\.mask"
    ):
        TWO_STAGE.build(content, source="x.pth", published=NAMES["faster_rcnn"], **SMALL, **HEAD)
    with pytest.raises(
        CheckpointError,
        match=r"x.pth is not of .*two-stage.*: Faster R-CNN: .*Cascade R-CNN: ",
    ):
        TWO_STAGE.build({"backbone.layer1.0.conv1.weight": torch.zeros(1)}, source="x.pth")


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
    model, changes = CASES[case]
    content, _ = file_of(model, **changes)
    del content["state_dict"][key]
    assert TWO_STAGE.recognizes(content)
    told = {**HEAD, "necks": changes["necks"], "backbone": {"width": 8}}
    with pytest.raises(CheckpointError, match=f"fit; missing: {key}$"):
        TWO_STAGE.build(content, source="x.pth", published=NAMES[case], **told)
    content["state_dict"][key] = torch.zeros(())
    with pytest.raises(CheckpointError, match=f"of another shape: {key} is"):
        TWO_STAGE.build(content, source="x.pth", published=NAMES[case], **told)
