"""EfficientDet: BiFPN on EfficientNet, all scaled together.

Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", arXiv:1911.09070, section 4.
images -> EfficientNet -> BiFPN -> separable towers -> nine anchors a cell -> focal and Huber loss
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.families.m2det import LARGEST_LOG
from pyrafuse.models.families.retinanet import published
from pyrafuse.models.registry import MODELS


@dataclass(frozen=True)
class Scaling:
    """What compound scaling gives (table 1 of the paper).

    Attributes:
        channels: Channels of BiFPN.
        repeats: Repeats of BiFPN's cell.
        num_convs: Convolutions of each of the head's towers.
        size: Side of the published figures' input, in pixels.
    """

    channels: int
    repeats: int
    num_convs: int
    size: int


SCALINGS = (
    Scaling(64, 3, 3, 512),
    Scaling(88, 4, 3, 640),
    Scaling(112, 5, 3, 768),
    Scaling(160, 6, 4, 896),
    Scaling(224, 7, 4, 1024),
    Scaling(288, 7, 4, 1280),
)
"""By the number in the name."""


def efficientdet(number: int, *, same_padding: bool = False) -> DetectorSpec:
    """EfficientDet-D0 to D5: BiFPN on EfficientNet.

    Its Huber loss of delta 0.1, of weight 50 and averaged over the four numbers, is smooth L1 of beta 0.1 and weight
    50 x 0.1 / 4. The original divides by one positive more than there are.

    Args:
        number: Number in the name, 0 for D0.
        same_padding: Whether padding and biases are those of TensorFlow's training: padding at the end first, and
            biases in front of batch norms.
    """
    scaling = SCALINGS[number]
    return DetectorSpec(
        backbone=part(f"timm/{'tf_' if same_padding else ''}efficientnet_b{number}"),
        necks=(part("bifpn", **presets(number, same_padding=same_padding)["bifpn"]),),
        head=part("efficientdet", num_convs=scaling.num_convs, redundant_bias=same_padding),
        coder=part("delta", largest_log=LARGEST_LOG),
        criterion=part(
            "dense",
            assigner=part("max_iou", positive_iou=0.5, negative_iou=0.5, match_ties=False),
            class_loss=part("focal", gamma=1.5),
            box_loss=part("smooth_l1", beta=0.1),
            box_weight=1.25,
            least_per_image=0,
        ),
        decode=part("dense"),
        # the original has no threshold, but looks at 5000 pairs of box and class
        postprocess=published(score=0.001, nms_iou=0.5, max_candidates=5000, max_per_level=0),
    )


def presets(number: int, *, same_padding: bool) -> dict[str, dict[str, Any]]:
    """Options of necks in an EfficientDet, with the channels of its scaling."""
    scaling = SCALINGS[number]
    width: dict[str, Any] = {"out_channels": scaling.channels}
    bifpn = {**width, "repeats": scaling.repeats, "same_padding": same_padding, "redundant_bias": same_padding}
    return {"bifpn": bifpn, "fpn": width, "pafpn": width}


def summarize(number: int, *, same_padding: bool) -> str:
    """The detector in a line."""
    scaling = SCALINGS[number]
    return (
        f"EfficientDet-D{number}: EfficientNet-B{number} and {scaling.repeats} layers of BiFPN with {scaling.channels} "
        f"channels, for {scaling.size} px{', padded as in TensorFlow' if same_padding else ''}."
    )


for _number in range(len(SCALINGS)):
    for _prefix, _same in (("", False), ("tf_", True)):
        MODELS.add(
            f"{_prefix}efficientdet_d{_number}",
            partial(efficientdet, _number, same_padding=_same),
            paper="1911.09070",
            summary=summarize(_number, same_padding=_same),
            presets=presets(_number, same_padding=_same),
        )
