"""mmdetection's two-stage detectors -> ours: Faster R-CNN with FPN or PAFPN, Libra R-CNN, Cascade R-CNN, RFP.

What a key means was learnt from the published files' keys and shapes.
state dict -> which detector, on which ResNet or ResNeXt -> ours -> every key renamed, none left over
"""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.pyramid import Neck
from pyrafuse.importers.mmdetection import depth_of, fill_card, grouping_of
from pyrafuse.importers.mmdetection_blocks import name_bfp, naming_recursive_fpn
from pyrafuse.importers.mmdetection_necks import name_fpn
from pyrafuse.importers.renaming import (
    Naming,
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.faster_rcnn import STRIDES
from pyrafuse.models.recursive_fpn import RecursiveFPN
from pyrafuse.models.two_stage import TwoStageDetector
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.necks.registry import NeckChain

TITLES = {
    "faster_rcnn": "Faster R-CNN",
    "libra_rcnn": "Libra R-CNN",
    "cascade_rcnn": "Cascade R-CNN",
    "cascade_rcnn_rfp": "Cascade R-CNN with recursive FPN",
}
_STAGES = r"roi_head\.bbox_head\.\d+\."

_name_rpn = by_patterns(
    [(r"^tower\.convs\.0\.", "rpn_conv."), (r"^objectness\.", "rpn_cls."), (r"^deltas\.", "rpn_reg.")]
)
_name_region_head = by_patterns([(r"^layers\.", "shared_fcs."), (r"^classes\.", "fc_cls."), (r"^deltas\.", "fc_reg.")])


def looks_like_mmdetection_two_stage(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a two-stage detector of mmdetection."""
    marks = (r"backbone\.layer1\.", r"rpn_head\.rpn_(cls|reg)\.", r"roi_head\.bbox_head\.(\d+\.)?fc_(cls|reg)\.")
    return has_keys(unwrap_state(content), *marks)


def import_mmdetection_two_stage(
    content: Any,
    *,
    source: str | os.PathLike[str],
    style: str = "pytorch",
    options: Mapping[str, Any] | None = None,
) -> Detector:
    """Build the detector that ``content`` holds the parameters of.

    The card names the model and its origin; how images are made ready is for the caller to say, as no key tells.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages.
        style: Where the ResNet strides, ``pytorch`` or ``caffe``; the published checkpoints are of the first.
        options: Further options of the model.

    Raises:
        CheckpointError: If it is none of the detectors, or does not fit; keys are named.
    """
    if not looks_like_mmdetection_two_stage(content):
        known = ", ".join(TITLES.values())
        raise CheckpointError(f"{source} is no two-stage detector of mmdetection that is known here: {known}")
    state = unwrap_state(content)
    model = model_of(state)
    depth = depth_of(state, source)
    layout = f"mmdetection's {TITLES[model]}"
    classifier = f"roi_head.bbox_head.{'0.' if has_keys(state, _STAGES) else ''}fc_cls.weight"
    num_classes = read_shape(state, classifier, source=source, layout=layout, ndim=2, least=2)[0] - 1
    trunk = {"style": style, **grouping_of(state, source)}
    built = _options_of(state, model, f"resnet{depth}", trunk)
    given = dict(options or {})
    given["backbone_options"] = {**built["backbone_options"], **given.get("backbone_options", {})}
    with Uninitialized():
        detector = create_model(model, num_classes=num_classes, **{**built, **given})
    assert isinstance(detector, TwoStageDetector)
    naming, unused = name_two_stage(detector)
    load_renamed(detector, state, naming, source=source, layout=layout, unused=unused)
    fill_card(detector, num_classes, what=f"{TITLES[model]} on ResNet-{depth}")
    return detector


def name_two_stage(detector: TwoStageDetector) -> tuple[Naming, tuple[str, ...]]:
    """Names of a whole detector, and patterns of the keys that stay unused."""
    parts: dict[str, tuple[str, Naming]] = {"backbone": ("backbone", name_resnet), "head": ("rpn_head", _name_rpn)}
    unused: tuple[str, ...] = ()
    if isinstance(detector.backbone, RecursiveFPN):
        parts["backbone"] = ("", naming_recursive_fpn(detector.backbone))
        unused = (
            r"(backbone|neck\.rfp_modules\.\d+)\.fc\.(weight|bias)$",
        )  # classifiers of the backbones, which nothing reads
    elif isinstance(detector.neck, NeckChain):
        for i, neck in enumerate(detector.neck.necks):
            assert isinstance(neck, Neck)
            parts[f"neck.necks.{i}"] = (f"neck.{i}", name_bfp if i else name_fpn(neck))
    else:
        parts["neck"] = ("neck", name_fpn(detector.neck))
    for number in range(len(detector.stages)):
        theirs = "roi_head.bbox_head" if len(detector.stages) == 1 else f"roi_head.bbox_head.{number}"
        parts[f"stages.{number}.head"] = (theirs, _name_region_head)
    return by_parts(parts), unused


def model_of(state: Mapping[str, Tensor]) -> str:
    """Our model's registered name."""
    if has_keys(state, _STAGES):
        return "cascade_rcnn_rfp" if any(key.startswith("neck.rfp_") for key in state) else "cascade_rcnn"
    return "libra_rcnn" if any(key.startswith("neck.1.") for key in state) else "faster_rcnn"


def family_name_of(state: Mapping[str, Tensor]) -> str:
    """Of `PUBLISHED_FAMILIES`."""
    model = model_of(state)
    if model == "cascade_rcnn_rfp":
        return "detectors_cascade_rcnn" if has_keys(state, r".*\.offset_s\.") else model
    return f"{model}_pafpn" if _has_path_aggregation(state) else model


def title_of(state: Mapping[str, Tensor]) -> str:
    """The detector in words."""
    return f"{TITLES[model_of(state)]}{' with PAFPN' if _has_path_aggregation(state) else ''}"


def _has_path_aggregation(state: Mapping[str, Tensor]) -> bool:
    return has_keys(state, r"neck\.(downsample|pafpn)_convs\.")


def _options_of(state: Mapping[str, Tensor], model: str, backbone: str, trunk: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the model that its keys tell, on this ``backbone`` with the options ``trunk``."""
    if model == "cascade_rcnn_rfp":
        rounds = {key.split(".")[2] for key in state if key.startswith("neck.rfp_modules.")}
        recursion = {
            "backbone": backbone,
            "backbone_options": {"strides": STRIDES, **trunk},
            "num_rounds": 1 + len(rounds),
            "standardized": any(key.endswith(".weight_gamma") for key in state),
            "switchable": any(".offset_s." in key for key in state),
        }
        return {"backbone_options": recursion}
    neck = {"neck": "pafpn"} if _has_path_aggregation(state) else {}
    return {"backbone": backbone, "backbone_options": dict(trunk), **neck}
