"""FCOS: a detector without anchors.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355.
images -> ResNet -> FPN -> a point a cell -> focal loss, IoU loss weighed by centerness, and centerness
"""

from functools import partial

from torch import nn

from pyrafuse.assigners.points import PointAssigner, ranges_for
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.level_weights import create_level_weights
from pyrafuse.losses.classification import focal_of_labels
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, choose_box_loss, dense_detector
from pyrafuse.models.registry import MODELS
from pyrafuse.ops.coders import BoxCoder, DistanceCoder


def fcos_criterion(
    features: PyramidSpec,
    coder: BoxCoder,
    *,
    assigner: Options = NO_OPTIONS,
    box_loss: str = "iou",
    box_loss_options: Options = NO_OPTIONS,
    level_weights: Options | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_weight: float = 1.0,
    quality_weight: float = 1.0,
) -> DenseCriterion:
    """FCOS's losses.

    Args:
        features: What the head reads.
        coder: Of the boxes.
        assigner: Keyword arguments of `PointAssigner`.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`.
        box_loss_options: Its keyword arguments.
        level_weights: See `create_level_weights`.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        box_weight: Of the box loss in the sum.
        quality_weight: Of the centerness.
    """
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    return DenseCriterion(
        assigner=PointAssigner(**assigner),
        coder=coder,
        class_loss=partial(focal_of_labels, alpha=alpha, gamma=gamma),
        box_loss=loss,
        decoded=decoded,
        quality="centerness",
        level_weights=create_level_weights(len(features), level_weights),
        box_weight=box_weight,
        quality_weight=quality_weight,
        least_per_image=0,
    )


def _create(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:
    assigner = {"ranges": ranges_for(features.strides), **options.get("assigner", {})}
    if len(assigner["ranges"]) != len(features):
        raise ValueError(f"{len(features)} levels need as many ranges, got {assigner['ranges']}")
    return fcos_criterion(features, coder, **{**options, "assigner": assigner})


FCOS = DenseParts(head="fcos", coder=DistanceCoder(), criterion=_create)
DEFAULTS: dict[str, Options] = {
    "fpn": {"num_levels": 5, "extra": "output", "relu_before_extra": True},
    "postprocess": {"nms_iou": 0.5},
}

MODELS.add("fcos", partial(dense_detector, parts=FCOS, defaults=DEFAULTS), paper="1904.01355")
