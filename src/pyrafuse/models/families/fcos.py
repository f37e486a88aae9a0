"""FCOS: a detector without anchors.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355.
images -> ResNet -> FPN -> a point a cell -> focal loss, IoU loss weighed by centerness, and centerness
"""

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.families.retinanet import published
from pyrafuse.models.registry import MODELS

FIVE_LEVELS = {"fpn": {"num_levels": 5, "extra": "output", "relu_before_extra": True}}


@MODELS.register("fcos", paper="1904.01355", predictions="points", presets=FIVE_LEVELS)
def fcos() -> DetectorSpec:
    """FCOS: points in an object are matched to it, on the level made for its size."""
    return DetectorSpec(
        backbone=part("resnet50"),
        necks=(part("fpn", **FIVE_LEVELS["fpn"]),),
        head=part("fcos"),
        coder=part("distance"),
        criterion=part(
            "dense",
            assigner=part("points"),
            class_loss=part("focal"),
            box_loss=part("iou"),
            quality="centerness",
            least_per_image=0,
        ),
        decode=part("dense"),
        postprocess=published(nms_iou=0.5),
    )
