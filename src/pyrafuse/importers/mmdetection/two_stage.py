"""mmdetection's two-stage detectors -> ours: Faster R-CNN with FPN or PAFPN, Libra R-CNN, Cascade R-CNN, RFP.

What a key means was learnt from the published files' keys and shapes.
state dict -> which detector, on which ResNet or ResNeXt -> ours -> every key renamed, none left over
"""

from collections.abc import Mapping
from typing import Any

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers import origins
from pyrafuse.importers.engine import File, Found, Importer, Keys, State
from pyrafuse.importers.mmdetection.blocks import naming_recursive_fpn
from pyrafuse.importers.mmdetection.necks import name_bfp, name_fpn
from pyrafuse.importers.mmdetection.trunks import read_trunk
from pyrafuse.importers.mmdetection.usage import read_classes, tell_usage
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns, has_keys
from pyrafuse.models.detector import Detector
from pyrafuse.models.families.faster_rcnn import STRIDES
from pyrafuse.models.recursive_fpn import RecursiveFPN
from pyrafuse.models.two_stage import TwoStageDetector
from pyrafuse.necks.registry import NeckChain

TITLES = {
    "faster_rcnn": "Faster R-CNN",
    "libra_rcnn": "Libra R-CNN",
    "cascade_rcnn": "Cascade R-CNN",
    "cascade_rcnn_rfp": "Cascade R-CNN with recursive FPN",
}
MARKS = (r"backbone\.layer1\.", r"rpn_head\.rpn_(cls|reg)\.", r"roi_head\.bbox_head\.(\d+\.)?fc_(cls|reg)\.")
_STAGES = r"roi_head\.bbox_head\.\d+\."

_name_rpn = by_patterns(
    [(r"^tower\.convs\.0\.", "rpn_conv."), (r"^objectness\.", "rpn_cls."), (r"^deltas\.", "rpn_reg.")]
)
_name_region_head = by_patterns([(r"^layers\.", "shared_fcs."), (r"^classes\.", "fc_cls."), (r"^deltas\.", "fc_reg.")])


def describe_two_stage(file: File) -> Found:
    """Which two-stage detector ``file`` is, and how it is used."""
    state = file.state
    model, trunk = model_of(state), read_trunk(file)
    layout = f"mmdetection's {TITLES[model]}"
    whole = f"{layout}{' with PAFPN' if _has_path_aggregation(state) else ''}"
    usage = tell_usage(file, family=_family_of(state), trunk=trunk, layout=whole)
    classifier = f"roi_head.bbox_head.{'0.' if has_keys(state, _STAGES) else ''}fc_cls.weight"
    num_classes = file.shape(classifier, layout=layout, ndim=2, least=2)[0] - 1
    return Found(
        layout=layout,
        model=model,
        edits=[_edit(state, model, trunk.edit(usage.style)), usage.changes],
        keys=name_two_stage,
        classes=read_classes(file, num_classes),
        preprocessing=usage.preprocessing,
        origin=f"mmdetection checkpoint: {TITLES[model]} on ResNet-{trunk.depth}, {num_classes} classes; "
        f"{usage.origin}",
    )


def name_two_stage(detector: Detector) -> Keys:
    """Names of a whole detector."""
    assert isinstance(detector, TwoStageDetector)
    parts: dict[str, tuple[str, Naming]] = {"backbone": ("backbone", name_resnet), "head": ("rpn_head", _name_rpn)}
    unused: tuple[str, ...] = ()
    if isinstance(detector.backbone, RecursiveFPN):
        parts["backbone"] = ("", naming_recursive_fpn(detector.backbone))
        unused = (
            r"(backbone|neck\.rfp_modules\.\d+)\.fc\.(weight|bias)$",
        )  # classifiers of the backbones, which nothing reads
    elif isinstance(detector.neck, NeckChain):
        for i, neck in enumerate(detector.neck.necks):
            parts[f"neck.necks.{i}"] = (f"neck.{i}", name_bfp if i else name_fpn(neck))
    else:
        parts["neck"] = ("neck", name_fpn(detector.neck))
    for number in range(len(detector.stages)):
        theirs = "roi_head.bbox_head" if len(detector.stages) == 1 else f"roi_head.bbox_head.{number}"
        parts[f"stages.{number}.head"] = (theirs, _name_region_head)
    return Keys(by_parts(parts), unused=unused)


def model_of(state: State) -> str:
    """Our model's registered name."""
    if has_keys(state, _STAGES):
        return "cascade_rcnn_rfp" if any(key.startswith("neck.rfp_") for key in state) else "cascade_rcnn"
    return "libra_rcnn" if any(key.startswith("neck.1.") for key in state) else "faster_rcnn"


def _family_of(state: State) -> str:
    """Of `PUBLISHED_FAMILIES`."""
    model = model_of(state)
    if model == "cascade_rcnn_rfp":
        return "detectors_cascade_rcnn" if has_keys(state, r".*\.offset_s\.") else model
    return f"{model}_pafpn" if _has_path_aggregation(state) else model


def _has_path_aggregation(state: State) -> bool:
    return has_keys(state, r"neck\.(downsample|pafpn)_convs\.")


def _edit(state: State, model: str, trunk: Mapping[str, Any]) -> dict[str, Any]:
    """What the keys tell of the model, on the backbone ``trunk``."""
    if model == "cascade_rcnn_rfp":
        rounds = {key.split(".")[2] for key in state if key.startswith("neck.rfp_modules.")}
        recursion = {
            "backbone": {"strides": STRIDES, **trunk},
            "num_rounds": 1 + len(rounds),
            "standardized": any(key.endswith(".weight_gamma") for key in state),
            "switchable": any(".offset_s." in key for key in state),
        }
        return {"backbone": recursion}
    return {"backbone": trunk, **({"neck": "pafpn"} if _has_path_aggregation(state) else {})}


TWO_STAGE = Importer(origins.MMDETECTION_TWO_STAGE, MARKS, describe_two_stage)
