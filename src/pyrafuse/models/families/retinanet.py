"""RetinaNet, and its forms with NAS-FPN, a balanced pyramid (Libra) and guided anchors: the plainest dense detectors.

Lin et al., arXiv:1708.02002; Ghiasi et al., arXiv:1904.07392; Pang et al., arXiv:1904.02701; Wang et al.,
arXiv:1901.03278. images -> ResNet -> FPN -> nine anchors a cell -> focal loss and L1
"""

from pyrafuse.base.parts import Part, part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.registry import MODELS

FIVE_LEVELS = {"fpn": {"num_levels": 5, "extra": "input"}}


def published(*, nms_iou: float, **options: object) -> Part:
    """What selects detections with the thresholds of most published figures.

    Args:
        nms_iou: Overlap above which two boxes of a class are one object.
        options: Other thresholds.
    """
    usual = {"score": 0.05, "max_per_level": 1000, "max_detections": 100, "multi_label": True, "clip": True}
    return part("suppression", **{**usual, "nms_iou": nms_iou, **options})


@MODELS.register("retinanet", paper="1708.02002", predictions="anchors", presets=FIVE_LEVELS)
def retinanet() -> DetectorSpec:
    """RetinaNet: focal loss over all anchors."""
    return DetectorSpec(
        backbone=part("resnet50"),
        necks=(part("fpn", **FIVE_LEVELS["fpn"]),),
        head=part("retinanet"),
        coder=part("delta"),
        criterion=part("dense", assigner=part("max_iou"), class_loss=part("focal"), box_loss=part("l1")),
        decode=part("dense"),
        postprocess=published(nms_iou=0.5),
    )


@MODELS.register("retinanet_nas_fpn", paper="1904.07392")
def retinanet_nas_fpn() -> DetectorSpec:
    """RetinaNet on the pyramid that a search has found, with norms of each level's own in the head."""
    return retinanet().with_parts(
        neck="nas_fpn", head={"norm": "level_norm"}, criterion={"assigner": {"negative_iou": 0.5}}
    )


@MODELS.register("libra_retinanet", paper="1904.02701", presets={**FIVE_LEVELS, "bfp": {"level": 1}})
def libra_retinanet() -> DetectorSpec:
    """RetinaNet with a balanced pyramid and the balanced L1 loss."""
    return retinanet().with_parts(
        neck=("fpn", part("bfp", level=1)), criterion={"box_loss": part("balanced_l1", beta=0.11)}
    )


@MODELS.register("ga_retinanet", paper="1901.03278", predictions="guided_anchors", presets=FIVE_LEVELS)
def ga_retinanet() -> DetectorSpec:
    """RetinaNet whose one anchor a cell is guided in place and shape."""
    dense = part(
        "dense",
        assigner=part("max_iou", negative_iou=0.5),
        class_loss=part("focal"),
        box_loss=part("smooth_l1", beta=0.04),
    )
    guided = part(
        "guided_dense",
        dense=dense,
        shape_assigner=part("approx_max_iou", assigner=part("max_iou", least_best_iou=0.4)),
        shape_sampler=part("random", number=256),
        location_assigner=part("locations"),
    )
    return retinanet().with_parts(head="ga_retinanet", criterion=guided)
