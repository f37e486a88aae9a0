"""torchvision's detectors -> ours: FCOS and the second RetinaNet, both on ResNet-50 and FPN.

What a key means was learnt from the published files' keys and shapes.
state dict -> which detector -> ours -> every key renamed, none left over
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.core.errors import CheckpointError
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Neck
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers.class_names import name_by_coco_id
from pyrafuse.models.importers.renaming import Naming, by_modules, by_parts, by_patterns, load_renamed, unwrap_state
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.necks.graph_neck import GraphNeck


def name_fpn(neck: Neck, *, is_nested: bool = True) -> Naming:
    """Names of `fpn`: ``inner_blocks.0.0.weight``, ``layer_blocks.2.1.running_mean``, ``extra_blocks.p6.bias``.

    Args:
        neck: Ours.
        is_nested: Convolution and norm are numbered within a block; files from before 2022, whose FPN has no norm,
            have ``inner_blocks.0.weight``.
    """
    assert isinstance(neck, GraphNeck)
    return by_modules(_modules(neck, is_nested))


def _modules(neck: GraphNeck, is_nested: bool) -> Iterator[tuple[str, str]]:
    names = [step.merge.name for step in neck.plan.steps]
    read = sorted(int(name[1:]) for name in names if name[0] == "L")
    for name in names:
        kind, level = name[0], int(name[1:])
        if kind == "P" and level > read[-1]:
            yield f"merges.{name}.edges.0.halve.0.conv", f"extra_blocks.p{level}"
        elif kind in "LP":
            block = f"{'inner' if kind == 'L' else 'layer'}_blocks.{level - read[0]}"
            yield f"merges.{name}.conv.conv", f"{block}.0" if is_nested else block
            yield f"merges.{name}.conv.norm", f"{block}.1"


TOWER = by_patterns([(r"^convs\.(\d+)\.", r"conv.\1.0."), (r"^norms\.(\d+)\.0\.", r"conv.\1.1.")])
"""Of a `Tower` with group norms, whose convolutions and norms are numbered in pairs."""


def _name_flat_tower(key: str) -> str:
    """Of one whose convolutions, norms and activations are numbered through."""
    kind, number, rest = key.split(".", 2)
    return f"conv.{3 * int(number)}.{rest}" if kind == "convs" else f"conv.{3 * int(number) + 1}.{rest.split('.')[-1]}"


@dataclass(frozen=True)
class Family:
    """One of the detectors.

    Attributes:
        model: Its registered name here.
        options: Of the model, as far as the keys say nothing of them.
        slots: Anchors a cell.
        naming: Our key of the head -> theirs.
    """

    model: str
    options: Mapping[str, Any]
    slots: int
    naming: Naming


_CLASSES, _BOXES = "classification_head", "regression_head"
FAMILIES: Mapping[str, Family] = {
    "retinanet_resnet50_fpn_v2": Family(
        "retinanet",
        {
            "neck_options": {"fpn": {"extra": "input", "relu_before_extra": True}},
            "head_options": {"norm": "group_norm", "whole_pixels": True},
            "criterion_options": {"box_loss": "giou"},
            "postprocess_options": {"score": 0.05, "nms_iou": 0.5, "max_detections": 300},
        },
        9,
        by_parts(
            {
                "class_tower": (_CLASSES, TOWER),
                "box_tower": (_BOXES, TOWER),
                "classes": (f"{_CLASSES}.cls_logits", str),
                "deltas": (f"{_BOXES}.bbox_reg", str),
            }
        ),
    ),
    "fcos_resnet50_fpn": Family(
        "fcos",
        {
            "neck_options": {"fpn": {"extra": "output", "relu_before_extra": True}},
            "head_options": {
                "centerness_on_boxes": True,
                "distances": "relu",
                "whole_steps": True,
                "redundant_bias": True,
            },
            "criterion_options": {"box_loss": "giou", "assigner": {"radius": 1.5}},
            "postprocess_options": {"score": 0.2, "nms_iou": 0.6, "max_detections": 100, "joint_quality": True},
        },
        1,
        by_parts(
            {
                "class_tower": (_CLASSES, _name_flat_tower),
                "box_tower": (_BOXES, _name_flat_tower),
                "classes": (f"{_CLASSES}.cls_logits", str),
                "deltas": (f"{_BOXES}.bbox_reg", str),
                "quality": (f"{_BOXES}.bbox_ctrness", str),
            }
        ),
    ),
}


def looks_like_torchvision(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a detector of torchvision."""
    state = unwrap_state(content)
    return any(key.startswith("backbone.body.") for key in state) and any("head" in key for key in state)


def import_torchvision(content: Any, *, source: str | os.PathLike[str]) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its own preprocessing and test settings.

    Their 91 outputs are COCO's own ids, of which eleven stand for nothing.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages.

    Raises:
        CheckpointError: If it is another detector, or does not fit; keys are named.
    """
    state = unwrap_state(content)
    title = _title_of(state)
    if title not in FAMILIES:
        raise CheckpointError(
            f"{source} is {title} of torchvision, which is not read here; what is: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[title]
    num_classes = state[f"head.{_CLASSES}.cls_logits.weight"].shape[0] // family.slots
    with Uninitialized():
        detector = create_model(family.model, num_classes=num_classes, backbone="resnet50", **family.options)
    naming = by_parts(
        {
            "backbone": ("backbone.body", name_resnet),
            "neck": ("backbone.fpn", name_fpn(detector.neck)),
            "head": ("head", family.naming),
        }
    )
    load_renamed(detector, state, naming, source=source, layout=f"torchvision's {title}")
    names, category_ids = name_by_coco_id(num_classes, first=0)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=Preprocessing(size=(800, 1333), fit="keep_ratio", interpolation="opencv"),
        origin=f"torchvision's {title}, {num_classes} classes",
    )
    return detector


def _title_of(state: Mapping[str, Tensor]) -> str:
    """Torchvision's name of the detector, as its keys tell it, or what else it is."""
    if any(key.startswith(("rpn.", "roi_heads.")) for key in state):
        return "a two-stage detector"
    if f"head.{_BOXES}.bbox_ctrness.weight" in state:
        return "fcos_resnet50_fpn"
    has_norms = f"head.{_CLASSES}.conv.0.1.weight" in state
    return "retinanet_resnet50_fpn_v2" if has_norms else "a RetinaNet without norms in its head, the first version"
