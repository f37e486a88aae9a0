"""M2Det: SSD's losses on the multi-level feature pyramid network.

Zhao et al., "M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network", arXiv:1811.04533.
images -> VGG-16 or ResNet -> MLFPN -> six anchors a cell -> cross entropy of the hardest negatives, smooth L1
"""

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.families.ssd import ssd300
from pyrafuse.models.registry import MODELS

LARGEST_LOG = 20.0
"""Bound of a decoded log ratio of sides: as good as none."""
RESNET = {"downsampling": (1, 2, 1, 2), "strides": (8, 16)}
"""Of a ResNet as M2Det's trunk: its third stage keeps the size; the second's and the fourth's maps are taken."""


@MODELS.register("m2det", paper="1811.04533", presets={"*resnet*": RESNET})
def m2det() -> DetectorSpec:
    """M2Det for images of 320 px; other sizes are an option of its head."""
    return ssd300().with_parts(
        neck="mlfpn",
        head="m2det",
        coder={"largest_log": LARGEST_LOG},
        # anchors and objects are compared in sides of the input
        criterion={
            "assigner": part(
                "fractional",
                assigner=part("max_iou", positive_iou=0.5, negative_iou=0.5, match_ties=False),
            ),
            "least_per_image": 0,
        },
        postprocess={
            "score": 0.1,
            "suppression": "soft",
            # the released settings say 0.45, which never acts
            "nms_iou": 0.3,
            "pixel_offset": 1.0,
            "max_per_class": 50,
            "max_per_level": 0,
            "max_detections": 0,
            "clip": False,
        },
    )
