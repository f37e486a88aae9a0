"""M2Det: SSD's losses on the multi-level feature pyramid network.

Zhao et al., "M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network", arXiv:1811.04533.
images -> VGG-16 or ResNet -> MLFPN -> six anchors a cell -> cross entropy of the hardest negatives, smooth L1
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from pyrafuse.assigners.fractional import FractionalAssigner
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.multibox import m2det_anchors
from pyrafuse.models.dense import NO_OPTIONS, DenseParts, Options, dense_detector
from pyrafuse.models.detector import Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.models.ssd import multibox_criterion
from pyrafuse.ops.coders import LARGEST_LOG, BoxCoder, DeltaCoder
from pyrafuse.postprocess.multibox import decode_multibox

RESNET: Options = {"downsampling": (1, 2, 1, 2), "strides": (8, 16)}
"""Of a ResNet as M2Det's trunk: its third stage keeps the size; the second's and the fourth's maps are taken."""


def m2det_criterion(features: PyramidSpec, coder: BoxCoder, options: Options, *, anchors: Options) -> nn.Module:
    """SSD's losses, with anchors and objects compared in sides of the input.

    Args:
        features: What the head reads.
        coder: Of the boxes.
        options: Keyword arguments of `multibox_criterion`.
        anchors: Those of `m2det_anchors`.
    """
    shapes, steps = m2det_anchors(features, **anchors)
    compared = partial(FractionalAssigner, size=anchors["size"], shapes=shapes, steps=steps)
    return multibox_criterion(coder, **{"least_per_image": 0, "compared": compared, **options})


DEFAULTS: dict[str, Options] = {
    "postprocess": {
        "score": 0.1,
        "suppression": "soft",
        # the released settings say 0.45, which never acts
        "nms_iou": 0.3,
        "pixel_offset": 1.0,
        "max_per_class": 50,
        "max_per_level": 0,
        "max_detections": 0,
        "clip": False,
    }
}
M2DET = DenseParts(
    head="m2det",
    coder=DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2), largest_log=LARGEST_LOG),
    criterion=partial(m2det_criterion, anchors={"size": 320}),
    decode=decode_multibox,
    shares_levels=False,
)


@MODELS.register("m2det")
def m2det(
    num_classes: int,
    *,
    size: int = 320,
    backbone: str = "vgg16",
    neck: str | Sequence[str] = "mlfpn",
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = DEFAULTS,
) -> Detector[DensePredictions]:
    """M2Det.

    Args:
        num_classes: K.
        size: Side of the input in pixels, which the anchors are for; a multiple of 16.
        backbone: One with maps at strides 8 and 16; a ResNet gets them as M2Det's does.
        neck: A registered neck, or several in a row; of another number of levels than six, see `m2det_head`.
        backbone_options: Keyword arguments of the backbone; ``weights`` among them.
        neck_options: Keyword arguments of each neck, by its name: of ``mlfpn`` the released detectors have
            ``attention=False``, the paper's SFAM.
        head_options: Keyword arguments of `m2det_head`.
        criterion_options: Keyword arguments of `multibox_criterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: See `dense_detector`.
    """
    anchors = {"size": size, **head_options}
    of_trunk = RESNET if "resnet" in backbone and not backbone.startswith("timm/") else NO_OPTIONS
    return dense_detector(
        num_classes,
        parts=replace(M2DET, criterion=partial(m2det_criterion, anchors=anchors)),
        backbone=backbone,
        neck=neck,
        backbone_options={**of_trunk, **backbone_options},
        neck_options=neck_options,
        head_options=anchors,
        criterion_options=criterion_options,
        postprocess_options=postprocess_options,
        defaults=defaults,
    )
