"""Faster R-CNN, its balanced form Libra R-CNN, and Cascade R-CNN, plain or on a recursive pyramid.

Ren et al., arXiv:1506.01497, on the pyramid of arXiv:1612.03144; Pang et al., arXiv:1904.02701; Cai and Vasconcelos,
arXiv:1712.00726; Qiao, Chen and Yuille, "DetectoRS", arXiv:2006.02334.
images -> ResNet -> FPN -> 1000 proposals -> class and box of each; in a cascade three times, each time nearer
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.models.registry import MODELS
from pyrafuse.models.two_stage import (
    NO_OPTIONS,
    Options,
    StageSettings,
    TwoStageDetector,
    TwoStageParts,
    two_stage_detector,
)
from pyrafuse.necks.registry import create_neck, with_equal_channels

STRIDES = (4, 8, 16, 32)
"""Of the maps that the detectors' papers read."""


def faster_rcnn(
    num_classes: int,
    *,
    parts: TwoStageParts,
    backbone: str = "resnet50",
    neck: str | Sequence[str] = "fpn",
    backbone_options: Options = NO_OPTIONS,
    neck_options: Mapping[str, Options] = NO_OPTIONS,
    head_options: Options = NO_OPTIONS,
    region_options: Options = NO_OPTIONS,
    proposal_options: Options = NO_OPTIONS,
    learning_proposal_options: Options = NO_OPTIONS,
    sampling_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = NO_OPTIONS,
) -> TwoStageDetector:
    """A detector that looks again into the regions that it has found.

    Args:
        num_classes: K.
        parts: Which one.
        backbone: A registered backbone, ``recursive_fpn`` with neck ``identity`` among them, or ``timm/NAME``.
        neck: A registered neck, or several in a row; where its levels differ in channels, a `Projection` follows.
        backbone_options: Keyword arguments of the backbone; maps at strides 4 to 32 by default, if it goes so far.
        neck_options: Keyword arguments of each neck, by its name.
        head_options: See `two_stage_detector`, as for all others.
        region_options: Of the looks into the regions.
        proposal_options: Of the regions to detect in.
        learning_proposal_options: Of the regions to sample from.
        sampling_options: Of the samples; see `region_sampler`.
        criterion_options: Of the losses; see `two_stage_criterion`.
        postprocess_options: Of the detections.
        defaults: See `two_stage_detector`; those of each neck by its name besides, for the necks that are there.
    """
    trunk = create_backbone(backbone, **_with_strides(backbone, backbone_options))
    return two_stage_detector(
        trunk,
        with_equal_channels(create_neck(neck, trunk.features, _with_defaults(neck, defaults, neck_options))),
        num_classes,
        parts=parts,
        head_options=head_options,
        region_options=region_options,
        proposal_options=proposal_options,
        learning_proposal_options=learning_proposal_options,
        sampling_options=sampling_options,
        criterion_options=criterion_options,
        postprocess_options=postprocess_options,
        defaults=defaults,
    )


def _with_strides(backbone: str, options: Options) -> dict[str, Any]:
    if backbone.startswith("timm/"):
        return {"strides": STRIDES, **options}
    own = inspect.signature(BACKBONES.get(backbone)).parameters.get("strides")
    if own is None:
        return dict(options)
    # VGG-16 ends at stride 16, and says so by its default
    return {"strides": tuple(stride for stride in STRIDES if stride <= max(own.default)), **options}


def _with_defaults(
    neck: str | Sequence[str], defaults: Mapping[str, Options], options: Mapping[str, Options]
) -> Mapping[str, Options]:
    chain = [neck] if isinstance(neck, str) else list(neck)
    known = {name: defaults[name] for name in chain if name in defaults}
    return {name: {**known.get(name, {}), **options.get(name, {})} for name in {**known, **options}}


FASTER: Mapping[str, Options] = {"fpn": {"num_levels": 5}, "pafpn": {"num_levels": 5}}
LIBRA: Mapping[str, Options] = {
    **FASTER,
    "sampling": {"instance_balanced": True, "iou_balanced": True},
    "criterion": {"box_loss": "balanced_l1", "proposal_sampler": {"negatives_per_positive": 5}},
}
CASCADE: Mapping[str, Options] = {
    **FASTER,
    "region": {"class_agnostic": True},
    "learning_proposals": {"max_regions": 2000},
    "criterion": {
        "box_loss": "smooth_l1",
        "proposal_box_loss": "smooth_l1",
        "proposal_box_loss_options": {"beta": 1 / 9},
        "proposal_assigner": {"border": 0},
    },
}
ONE_STAGE = TwoStageParts()
THREE_STAGES = TwoStageParts(
    stages=(
        StageSettings(positive_iou=0.5, stds=(0.1, 0.1, 0.2, 0.2), weight=1.0),
        StageSettings(positive_iou=0.6, stds=(0.05, 0.05, 0.1, 0.1), weight=0.5),
        StageSettings(positive_iou=0.7, stds=(0.033, 0.033, 0.067, 0.067), weight=0.25),
    )
)

MODELS.add("faster_rcnn", partial(faster_rcnn, parts=ONE_STAGE, defaults=FASTER), paper="1506.01497")
MODELS.add("libra_rcnn", partial(faster_rcnn, parts=ONE_STAGE, neck=("fpn", "bfp"), defaults=LIBRA), paper="1904.02701")
MODELS.add("cascade_rcnn", partial(faster_rcnn, parts=THREE_STAGES, defaults=CASCADE), paper="1712.00726")
MODELS.add(
    "cascade_rcnn_rfp",
    partial(faster_rcnn, parts=THREE_STAGES, backbone="recursive_fpn", neck="identity", defaults=CASCADE),
    paper="2006.02334",
)
