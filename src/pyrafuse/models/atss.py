"""ATSS, whose objects find their own thresholds, and DDOD, whose branches are taken apart, on ATSS and on FCOS.

Zhang et al., arXiv:1912.02424; Chen et al., "Disentangle Your Dense Object Detector", arXiv:2107.02963.
images -> ResNet -> FPN -> one square, or one point, a cell -> focal loss, GIoU and the quality of boxes
"""

from functools import partial

from torch import nn

from pyrafuse.assigners.atss import ATSSAssigner
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.level_weights import create_level_weights
from pyrafuse.losses.classification import focal_of_labels
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, choose_box_loss, dense_detector
from pyrafuse.models.registry import MODELS
from pyrafuse.ops.coders import BoxCoder, DeltaCoder, DistanceCoder


def atss_criterion(
    features: PyramidSpec,
    coder: BoxCoder,
    *,
    top_k: int = 9,
    class_alpha: float | None = None,
    box_alpha: float | None = None,
    box_loss: str = "giou",
    box_loss_options: Options = NO_OPTIONS,
    quality: str = "centerness",
    level_weights: Options | None = None,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_weight: float = 2.0,
    quality_weight: float = 1.0,
) -> DenseCriterion:
    """The losses of ATSS and DDOD.

    Args:
        features: What the head reads.
        coder: Of the boxes.
        top_k: Rows of each level that an object looks at.
        class_alpha: `ATSSAssigner`'s ``alpha`` where classes are learnt.
        box_alpha: The same where boxes are learnt; both branches share their rows where the two are the same.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`.
        box_loss_options: Its keyword arguments.
        quality: What the quality branch learns: ``centerness`` or ``iou``.
        level_weights: See `create_level_weights`.
        alpha: Of the focal loss.
        gamma: Of the focal loss.
        box_weight: Of the box loss in the sum.
        quality_weight: Of the quality loss.
    """
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    assigner = ATSSAssigner(top_k=top_k, alpha=class_alpha, coder=coder)
    is_apart = box_alpha != class_alpha
    return DenseCriterion(
        assigner=assigner,
        box_assigner=ATSSAssigner(top_k=top_k, alpha=box_alpha, coder=coder) if is_apart else None,
        coder=coder,
        class_loss=partial(focal_of_labels, alpha=alpha, gamma=gamma),
        box_loss=loss,
        decoded=decoded,
        quality=quality,  # type: ignore[arg-type]  # the criterion refuses any other
        level_weights=create_level_weights(len(features), level_weights),
        box_weight=box_weight,
        quality_weight=quality_weight,
    )


def _create(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:
    return atss_criterion(features, coder, **options)


CODER = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
ATSS: dict[str, Options] = {
    "fpn": {"num_levels": 5, "extra": "output"},
    "postprocess": {"nms_iou": 0.6},
}
DDOD: dict[str, Options] = {
    **ATSS,
    "criterion": {"class_alpha": 0.8, "box_alpha": 0.5, "quality": "iou", "level_weights": NO_OPTIONS},
}

for _head, _defaults, _paper in (("atss", ATSS, "1912.02424"), ("ddod", DDOD, "2107.02963")):
    _parts = DenseParts(head=_head, coder=CODER, criterion=_create)
    MODELS.add(_head, partial(dense_detector, parts=_parts, defaults=_defaults), paper=_paper)

DDOD_ON_FCOS = DenseParts(head="fcos", coder=DistanceCoder(), criterion=_create)
# the quality is the overlap of the box here, which the boxes' tower knows about; and the costs look at boxes from the
# first step on: in strides these begin about as large as what their level is made for, in pixels all alike
DDOD_FCOS: dict[str, Options] = {
    **DDOD,
    "fpn": {**ATSS["fpn"], "relu_before_extra": True},
    "head": {"deformable": True, "centerness_on_boxes": True, "distances": "relu"},
}
MODELS.add("ddod_fcos", partial(dense_detector, parts=DDOD_ON_FCOS, defaults=DDOD_FCOS), paper="2107.02963")
