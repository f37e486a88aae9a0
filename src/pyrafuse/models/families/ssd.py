"""SSD: default boxes on maps of many sizes, told from the background by one softmax.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, in the form of mmdetection; SSDLite, of separable
convolutions, arXiv:1801.04381, section 6.2, on MobileNetV3 in the form of torchvision. Both read these' checkpoints.
images -> backbone -> extra levels -> a convolution for each -> cross entropy of the hardest negatives, smooth L1
"""

from pyrafuse.base.parts import part
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.models.families.retinanet import published
from pyrafuse.models.registry import MODELS

EXTRA_512 = {
    "out_channels": (512, 256, 256, 256, 256),
    "strides": (2, 2, 2, 2, 1),
    "paddings": (1, 1, 1, 1, 1),
    "last_kernel_size": 4,
}
EXTRA_LITE = {
    "out_channels": (512, 256, 256, 128),
    "strides": (2, 2, 2, 2),
    "paddings": (1, 1, 1, 1),
    "l2_norm_scale": None,
    "depthwise": True,
    "norm": True,
    "activation": "relu6",
}
TRUNK_LITE = {"strides": (16, 32), "expanded": True}


@MODELS.register("ssd300", paper="1512.02325", predictions="multibox")
def ssd300() -> DetectorSpec:
    """SSD for images of 300 px."""
    return DetectorSpec(
        backbone=part("vgg16"),
        necks=(part("ssd_extra"),),
        head=part("ssd"),
        coder=part("delta", stds=(0.1, 0.1, 0.2, 0.2)),
        criterion=part(
            "dense",
            assigner=part("max_iou", positive_iou=0.5, negative_iou=0.5, match_ties=False),
            mine=part("hardest"),
            class_loss=part("softmax"),
            box_loss=part("smooth_l1"),
        ),
        decode=part("multibox"),
        postprocess=published(score=0.02, nms_iou=0.45, max_detections=200),
    )


@MODELS.register("ssd512", paper="1512.02325", presets={"ssd_extra": EXTRA_512})
def ssd512() -> DetectorSpec:
    """SSD for images of 512 px."""
    return ssd300().with_parts(neck=EXTRA_512, head={"size": 512})


@MODELS.register("ssdlite320", paper="1801.04381", presets={"ssd_extra": EXTRA_LITE, "mobilenet_v3_large": TRUNK_LITE})
def ssdlite320() -> DetectorSpec:
    """SSDLite for images of 320 px, on MobileNetV3."""
    return ssd300().with_parts(
        backbone=part("mobilenet_v3_large", **TRUNK_LITE),
        neck=EXTRA_LITE,
        head={"size": 320, "clip": True, "separable": True},
        postprocess={
            "score": 0.001,
            "nms_iou": 0.55,
            "max_per_level": 0,
            "max_pairs_per_class": 300,
            "max_detections": 300,
        },
    )
