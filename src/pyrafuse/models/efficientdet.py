"""EfficientDet: BiFPN on EfficientNet, all scaled together.

Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", arXiv:1911.09070, section 4.
images -> EfficientNet -> BiFPN -> separable towers -> nine anchors a cell -> focal and Huber loss
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.losses.classification import focal_of_labels
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, choose_box_loss, dense_detector
from pyrafuse.models.detector import Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.ops.coders import LARGEST_LOG, BoxCoder, DeltaCoder


@dataclass(frozen=True)
class Scaling:
    """What compound scaling gives (table 1 of the paper).

    Attributes:
        channels: Of BiFPN.
        repeats: Of BiFPN's cell.
        num_convs: Of the head's towers.
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


def efficientdet_criterion(
    coder: BoxCoder,
    *,
    positive_iou: float = 0.5,
    alpha: float = 0.25,
    gamma: float = 1.5,
    box_loss: str = "smooth_l1",
    box_loss_options: Options | None = None,
    box_weight: float = 1.25,
) -> DenseCriterion:
    """EfficientDet's losses.

    A Huber loss of delta 0.1, of weight 50 and averaged over the four numbers, is smooth L1 of beta 0.1 and weight
    50 x 0.1 / 4. The original divides by one positive more than there are.

    Args:
        coder: Of the boxes.
        positive_iou: Least overlap at which an anchor answers for its object; each object has its best one besides.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`.
        box_loss_options: Its keyword arguments; of smooth L1 by default a beta of 0.1.
        box_weight: Of the box loss in the sum.
    """
    if box_loss_options is None:
        box_loss_options = {"beta": 0.1} if box_loss == "smooth_l1" else {}
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    return DenseCriterion(
        assigner=MaxIoUAssigner(positive_iou=positive_iou, negative_iou=positive_iou, match_ties=False),
        coder=coder,
        class_loss=partial(focal_of_labels, alpha=alpha, gamma=gamma),
        box_loss=loss,
        decoded=decoded,
        box_weight=box_weight,
        least_per_image=0,
    )


def _create(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:  # noqa: ARG001
    return efficientdet_criterion(coder, **options)


EFFICIENTDET = DenseParts(head="efficientdet", coder=DeltaCoder(largest_log=LARGEST_LOG), criterion=_create)
DEFAULTS: dict[str, Options] = {
    # the original has no threshold, but looks at 5000 pairs of box and class
    "postprocess": {"score": 0.001, "nms_iou": 0.5, "max_candidates": 5000, "max_per_level": 0}
}


def efficientdet(
    num_classes: int,
    *,
    number: int,
    same_padding: bool = False,
    backbone: str | None = None,
    neck: str | Sequence[str] = "bifpn",
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = DEFAULTS,
) -> Detector[DensePredictions]:
    """An EfficientDet.

    Args:
        num_classes: K.
        number: Of its scaling: 0 for D0.
        same_padding: As trained with TensorFlow: padding at the end first, and biases in front of batch norms.
        backbone: Another than timm's EfficientNet of the same number.
        backbone_options: Keyword arguments of the backbone; ``weights`` and ``pretrained`` among them.
        neck: A registered neck, or several in a row; ``bifpn``, ``fpn`` and ``pafpn`` are as wide as the scaling says.
        neck_options: Keyword arguments of each neck, by its name.
        head_options: Keyword arguments of `EfficientDetHead`.
        criterion_options: Keyword arguments of `efficientdet_criterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: See `dense_detector`.
    """
    scaling = SCALINGS[number]
    bifpn = {
        "out_channels": scaling.channels,
        "repeats": scaling.repeats,
        "same_padding": same_padding,
        "redundant_bias": same_padding,
    }
    known = {"bifpn": bifpn, "fpn": {"out_channels": scaling.channels}, "pafpn": {"out_channels": scaling.channels}}
    return dense_detector(
        num_classes,
        parts=EFFICIENTDET,
        backbone=backbone or f"timm/{'tf_' if same_padding else ''}efficientnet_b{number}",
        neck=neck,
        backbone_options=backbone_options,
        neck_options=neck_options,
        head_options={"num_convs": scaling.num_convs, "redundant_bias": same_padding, **head_options},
        criterion_options=criterion_options,
        postprocess_options=postprocess_options,
        defaults={**known, **defaults},
    )


for _number in range(len(SCALINGS)):
    MODELS.add(f"efficientdet_d{_number}", partial(efficientdet, number=_number))
    MODELS.add(f"tf_efficientdet_d{_number}", partial(efficientdet, number=_number, same_padding=True))
