"""Faster R-CNN, its balanced form Libra R-CNN, and Cascade R-CNN, plain or on a recursive pyramid.

Ren et al., arXiv:1506.01497, on the pyramid of arXiv:1612.03144; Pang et al., arXiv:1904.02701; Cai and Vasconcelos,
arXiv:1712.00726; Qiao, Chen and Yuille, "DetectoRS", arXiv:2006.02334.
images -> ResNet -> FPN -> 1000 proposals -> class and box of each; in a cascade three times, each time nearer
"""

from pyrafuse.base.parts import Part, part
from pyrafuse.base.spec import TwoStageSpec
from pyrafuse.models.families.retinanet import published
from pyrafuse.models.registry import MODELS

STRIDES = (4, 8, 16, 32)
"""Strides of the maps that the detectors' papers read."""
PRESETS = {
    "fpn": {"num_levels": 5},
    "pafpn": {"num_levels": 5},
    "vgg16": {"strides": STRIDES[:-1]},
    "*": {"strides": STRIDES},
}


def _stage(*, positive_iou: float = 0.5, stds: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2), weight: float = 1.0) -> Part:
    """A stage whose regions are matched to an object from an overlap of ``positive_iou`` on, and else find nothing."""
    return part(
        "roi",
        head=part("region"),
        coder=part("delta", stds=stds),
        assigner=part("max_iou", positive_iou=positive_iou, negative_iou=positive_iou, match_best=False),
        sampler=part("random", number=512, positive_fraction=0.25),
        weight=weight,
    )


@MODELS.register("faster_rcnn", paper="1506.01497", predictions="proposals", presets=PRESETS)
def faster_rcnn() -> TwoStageSpec:
    """Faster R-CNN on a feature pyramid."""
    return TwoStageSpec(
        backbone=part("resnet50", strides=STRIDES),
        necks=(part("fpn", num_levels=5),),
        head=part("rpn"),
        coder=part("delta"),
        proposals=part("best"),
        learning_proposals=part("best", max_per_level=2000),
        stages=(_stage(),),
        criterion=part(
            "two_stage",
            proposals=part(
                "dense",
                assigner=part("max_iou", positive_iou=0.7, negative_iou=0.3, least_best_iou=0.3),
                sampler=part("random"),
                class_loss=part("objectness"),
                box_loss=part("l1"),
                over_samples=True,
            ),
            regions=part("region", class_loss=part("softmax"), box_loss=part("l1")),
        ),
        decode=part("two_stage"),
        postprocess=published(nms_iou=0.5, max_per_level=0),
    )


@MODELS.register("libra_rcnn", paper="1904.02701", presets=PRESETS)
def libra_rcnn() -> TwoStageSpec:
    """Libra R-CNN: samples, pyramid and loss balanced."""
    return faster_rcnn().with_parts(
        neck=("fpn", "bfp"),
        stages={"sampler": {"positives": "instance_balanced", "negatives": "iou_balanced"}},
        criterion={
            "proposals": {"sampler": {"negatives_per_positive": 5}},
            "regions": {"box_loss": "balanced_l1"},
        },
    )


@MODELS.register("cascade_rcnn", paper="1712.00726", presets=PRESETS)
def cascade_rcnn() -> TwoStageSpec:
    """Cascade R-CNN: three stages, each learning from the regions that the one before has moved."""
    stages = (
        _stage(positive_iou=0.5, stds=(0.1, 0.1, 0.2, 0.2), weight=1.0),
        _stage(positive_iou=0.6, stds=(0.05, 0.05, 0.1, 0.1), weight=0.5),
        _stage(positive_iou=0.7, stds=(0.033, 0.033, 0.067, 0.067), weight=0.25),
    )
    return (
        faster_rcnn()
        .with_parts(
            learning_proposals={"max_regions": 2000},
            stages=stages,
            criterion={
                "proposals": {"assigner": {"border": 0}, "box_loss": part("smooth_l1", beta=1 / 9)},
                "regions": {"box_loss": "smooth_l1"},
            },
        )
        .with_parts(stages={"head": {"class_agnostic": True}})
    )


@MODELS.register("cascade_rcnn_rfp", paper="2006.02334", presets=PRESETS)
def cascade_rcnn_rfp() -> TwoStageSpec:
    """Cascade R-CNN on a pyramid that is fed back into the backbone."""
    return cascade_rcnn().with_parts(backbone="recursive_fpn", neck="identity")
