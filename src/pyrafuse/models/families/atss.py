"""ATSS, whose objects find their own thresholds, and DDOD, whose branches are taken apart, on ATSS and on FCOS.

Zhang et al., arXiv:1912.02424; Chen et al., "Disentangle Your Dense Object Detector", arXiv:2107.02963.
images -> ResNet -> FPN -> one square, or one point, a cell -> focal loss, GIoU and the quality of boxes
"""

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.families.retinanet import published
from pyrafuse.models.registry import MODELS

FIVE_LEVELS = {"fpn": {"num_levels": 5, "extra": "output"}}
ON_POINTS = {"fpn": {**FIVE_LEVELS["fpn"], "relu_before_extra": True}}


@MODELS.register("atss", paper="1912.02424", predictions="anchors_with_quality", presets=FIVE_LEVELS)
def atss() -> DetectorSpec:
    """ATSS: the statistics of its candidates set each object's threshold."""
    return DetectorSpec(
        backbone=part("resnet50"),
        necks=(part("fpn", **FIVE_LEVELS["fpn"]),),
        head=part("atss"),
        coder=part("delta", stds=(0.1, 0.1, 0.2, 0.2)),
        criterion=part(
            "dense",
            assigner=part("atss"),
            class_loss=part("focal"),
            box_loss=part("giou"),
            quality="centerness",
            box_weight=2.0,
        ),
        decode=part("dense"),
        postprocess=published(nms_iou=0.6),
    )


@MODELS.register("ddod", paper="2107.02963", presets=FIVE_LEVELS)
def ddod() -> DetectorSpec:
    """DDOD on ATSS: each branch with its own rows and its own sampling, levels weighed by their positives."""
    return atss().with_parts(
        head="ddod",
        criterion={
            "assigner": {"alpha": 0.8},
            "box_assigner": part("atss", alpha=0.5),
            "quality": "iou",
            "level_weights": part("counted"),
        },
    )


@MODELS.register("ddod_fcos", paper="2107.02963", presets=ON_POINTS)
def ddod_fcos() -> DetectorSpec:
    """DDOD on FCOS, where there are no anchors."""
    # the quality is the overlap of the box here, which the boxes' tower knows about; and the costs look at boxes from
    # the first step on: in strides these begin about as large as what their level is made for, in pixels all alike
    return ddod().with_parts(
        neck=part("fpn", **ON_POINTS["fpn"]),
        head=part("fcos", deformable=True, centerness_on_boxes=True, distances="relu"),
        coder="distance",
    )
