"""RetinaNet, and its forms with NAS-FPN, a balanced pyramid (Libra) and guided anchors: the plainest dense detectors.

Lin et al., arXiv:1708.02002; Ghiasi et al., arXiv:1904.07392; Pang et al., arXiv:1904.02701; Wang et al.,
arXiv:1901.03278. images -> ResNet -> FPN -> nine anchors a cell -> focal loss and L1
"""

from functools import partial
from typing import Any

from torch import nn

from pyrafuse.assigners.locations import LocationAssigner
from pyrafuse.assigners.max_iou import ApproxMaxIoUAssigner, MaxIoUAssigner
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.guided_dense import GuidedDenseCriterion
from pyrafuse.criteria.level_weights import create_level_weights
from pyrafuse.losses.classification import focal_of_labels
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, choose_box_loss, dense_detector
from pyrafuse.models.registry import MODELS
from pyrafuse.ops.coders import BoxCoder, DeltaCoder
from pyrafuse.samplers.sampling import Sampler


def retinanet_criterion(
    features: PyramidSpec,
    coder: BoxCoder,
    *,
    assigner: Options = NO_OPTIONS,
    box_assigner: Options | None = None,
    box_loss: str = "l1",
    box_loss_options: Options = NO_OPTIONS,
    level_weights: Options | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_weight: float = 1.0,
) -> DenseCriterion:
    """RetinaNet's losses.

    Args:
        features: What the head reads.
        coder: Of the boxes.
        assigner: Keyword arguments of `MaxIoUAssigner`.
        box_assigner: The same for the boxes alone, where they have thresholds of their own; by default the same rows.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`.
        box_loss_options: Its keyword arguments.
        level_weights: See `create_level_weights`.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        box_weight: Of the box loss in the sum.
    """
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    return DenseCriterion(
        assigner=MaxIoUAssigner(**assigner),
        box_assigner=None if box_assigner is None else MaxIoUAssigner(**box_assigner),
        coder=coder,
        class_loss=partial(focal_of_labels, alpha=alpha, gamma=gamma),
        box_loss=loss,
        decoded=decoded,
        level_weights=create_level_weights(len(features), level_weights),
        box_weight=box_weight,
    )


def guided_criterion(
    features: PyramidSpec,
    coder: BoxCoder,
    *,
    shape_assigner: Options = NO_OPTIONS,
    shape_sampler: Options = NO_OPTIONS,
    location_assigner: Options = NO_OPTIONS,
    shape_weight: float = 1.0,
    location_weight: float = 1.0,
    inverted_locations: bool = False,
    **dense: Any,
) -> GuidedDenseCriterion:
    """GA-RetinaNet's losses.

    Args:
        features: What the head reads.
        coder: Of the boxes.
        shape_assigner: Keyword arguments of the `MaxIoUAssigner` of the squares.
        shape_sampler: Keyword arguments of their `Sampler`.
        location_assigner: Keyword arguments of `LocationAssigner`.
        shape_weight: Of the shape loss in the sum.
        location_weight: Of the location loss.
        inverted_locations: See `GuidedDenseCriterion`.
        dense: Those of `retinanet_criterion`.
    """
    of_boxes = {"assigner": {"negative_iou": 0.5}, "box_loss": "smooth_l1", "box_loss_options": {"beta": 0.04}}
    return GuidedDenseCriterion(
        retinanet_criterion(features, coder, **{**of_boxes, **dense}),
        shape_assigner=ApproxMaxIoUAssigner(MaxIoUAssigner(**{"least_best_iou": 0.4, **shape_assigner})),
        shape_sampler=Sampler(**shape_sampler),
        location_assigner=LocationAssigner(**location_assigner),
        shape_weight=shape_weight,
        location_weight=location_weight,
        inverted_locations=inverted_locations,
    )


def _create(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:
    return retinanet_criterion(features, coder, **options)


def _create_guided(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:
    return guided_criterion(features, coder, **options)


RETINANET = DenseParts(head="retinanet", coder=DeltaCoder(), criterion=_create)
GUIDED = DenseParts(head="ga_retinanet", coder=DeltaCoder(), criterion=_create_guided)
DEFAULTS: dict[str, Options] = {"fpn": {"num_levels": 5, "extra": "input"}, "postprocess": {"nms_iou": 0.5}}
NAS_FPN = {
    "head": {"norm": "level_norm"},
    "criterion": {"assigner": {"negative_iou": 0.5}},
    "postprocess": DEFAULTS["postprocess"],
}
LIBRA = {
    **DEFAULTS,
    "bfp": {"level": 1},
    "criterion": {"box_loss": "balanced_l1", "box_loss_options": {"beta": 0.11}},
}

MODELS.add("retinanet", partial(dense_detector, parts=RETINANET, defaults=DEFAULTS), paper="1708.02002")
MODELS.add(
    "retinanet_nas_fpn",
    partial(dense_detector, parts=RETINANET, neck="nas_fpn", defaults=NAS_FPN),
    paper="1904.07392",
)
MODELS.add(
    "libra_retinanet",
    partial(dense_detector, parts=RETINANET, neck=("fpn", "bfp"), defaults=LIBRA),
    paper="1904.02701",
)
MODELS.add("ga_retinanet", partial(dense_detector, parts=GUIDED, defaults=DEFAULTS), paper="1901.03278")
