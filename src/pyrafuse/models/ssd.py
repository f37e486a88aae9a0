"""SSD: default boxes on maps of many sizes, told from the background by one softmax.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, in the form of mmdetection; SSDLite, of separable
convolutions, arXiv:1801.04381, section 6.2, on MobileNetV3 in the form of torchvision. Both read these' checkpoints.
images -> backbone -> extra levels -> a convolution for each -> cross entropy of the hardest negatives, smooth L1
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.dense import Assign, DenseCriterion
from pyrafuse.losses.classification import softmax_of_labels
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, choose_box_loss, dense_detector
from pyrafuse.models.registry import MODELS
from pyrafuse.ops.coders import BoxCoder, DeltaCoder
from pyrafuse.postprocess.multibox import decode_multibox
from pyrafuse.samplers.mining import mine_hardest


def as_they_are(assigner: MaxIoUAssigner) -> Assign:
    """``assigner`` itself: boxes are compared in pixels."""
    return assigner


def multibox_criterion(
    coder: BoxCoder,
    *,
    positive_iou: float = 0.5,
    negatives_per_positive: float = 3.0,
    box_loss: str = "smooth_l1",
    box_loss_options: Options = NO_OPTIONS,
    box_weight: float = 1.0,
    least_per_image: int = 1,
    compared: Callable[[MaxIoUAssigner], Assign] = as_they_are,
) -> DenseCriterion:
    """SSD's losses, section 2.2.

    Args:
        coder: Of the boxes.
        positive_iou: Least overlap at which an anchor answers for its object; each object has its best one besides.
        negatives_per_positive: Of the hardest, image by image.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`.
        box_loss_options: Its keyword arguments.
        box_weight: Of the box loss in the sum.
        least_per_image: See `DenseCriterion`: 1 in mmdetection, 0 in the authors' code and in M2Det's.
        compared: What anchors and objects go through before they are compared.
    """
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    return DenseCriterion(
        assigner=compared(MaxIoUAssigner(positive_iou=positive_iou, negative_iou=positive_iou, match_ties=False)),
        mine=partial(mine_hardest, negatives_per_positive=negatives_per_positive),
        coder=coder,
        class_loss=softmax_of_labels,
        box_loss=loss,
        decoded=decoded,
        box_weight=box_weight,
        least_per_image=least_per_image,
    )


def _create(features: PyramidSpec, coder: BoxCoder, options: Options) -> nn.Module:  # noqa: ARG001
    return multibox_criterion(coder, **options)


SSD = DenseParts(
    head="ssd",
    coder=DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)),
    criterion=_create,
    decode=decode_multibox,
    shares_levels=False,
)
SSD300: dict[str, Options] = {"postprocess": {"score": 0.02, "nms_iou": 0.45, "max_detections": 200}}
SSD512: dict[str, Options] = {
    **SSD300,
    "ssd_extra": {
        "out_channels": (512, 256, 256, 256, 256),
        "strides": (2, 2, 2, 2, 1),
        "paddings": (1, 1, 1, 1, 1),
        "last_kernel_size": 4,
    },
    "head": {"size": 512},
}
SSDLITE320: dict[str, Options] = {
    "postprocess": {
        "score": 0.001,
        "nms_iou": 0.55,
        "max_per_level": 0,
        "max_pairs_per_class": 300,
        "max_detections": 300,
    },
    "ssd_extra": {
        "out_channels": (512, 256, 256, 128),
        "strides": (2, 2, 2, 2),
        "paddings": (1, 1, 1, 1),
        "l2_norm_scale": None,
        "depthwise": True,
        "norm": True,
        "activation": "relu6",
    },
    "mobilenet_v3_large": {"strides": (16, 32), "expanded": True},
    "head": {"size": 320, "clip": True, "separable": True},
}

for _name, _defaults in (("ssd300", SSD300), ("ssd512", SSD512)):
    MODELS.add(
        _name,
        partial(dense_detector, parts=SSD, backbone="vgg16", neck="ssd_extra", defaults=_defaults),
        paper="1512.02325",
    )
MODELS.add(
    "ssdlite320",
    partial(dense_detector, parts=SSD, backbone="mobilenet_v3_large", neck="ssd_extra", defaults=SSDLITE320),
    paper="1801.04381",
)
