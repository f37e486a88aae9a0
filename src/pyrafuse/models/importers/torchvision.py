"""torchvision's detectors -> ours: FCOS, both RetinaNets and the first Faster R-CNN, all on ResNet-50 and FPN.

What a key means was learnt from the published files' keys and shapes.
The frozen batch norms of the first RetinaNet and Faster R-CNN add 0 to the variance where they were trained from
torchvision's own COCO weights, and 1e-5 elsewhere: no key tells, so the name does.
state dict -> which detector -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.core.errors import CheckpointError
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Neck
from pyrafuse.models.detector import Detector
from pyrafuse.models.factory import create_model
from pyrafuse.models.importers.class_names import name_by_coco_id
from pyrafuse.models.importers.renaming import (
    Naming,
    by_modules,
    by_parts,
    by_patterns,
    has_keys,
    load_renamed,
    read_shape,
    unwrap_state,
)
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
        slots: Anchors a cell; 1 where each region has one class.
        parts: Of the model, but for backbone and neck, as `by_parts` has them.
        classifier: The key whose rows tell the number of classes.
        background: Rows that stand for no class, and come first.
    """

    model: str
    options: Mapping[str, Any]
    slots: int
    parts: Mapping[str, tuple[str, Naming]]
    classifier: str = "head.classification_head.cls_logits.weight"
    background: int = 0


_CLASSES, _BOXES = "classification_head", "regression_head"
_RETINA = {
    "head.class_tower": (f"head.{_CLASSES}", TOWER),
    "head.box_tower": (f"head.{_BOXES}", TOWER),
    "head.classes": (f"head.{_CLASSES}.cls_logits", str),
    "head.deltas": (f"head.{_BOXES}.bbox_reg", str),
}
_REGIONS = {"layers.0.": "box_head.fc6.", "layers.1.": "box_head.fc7."} | {
    "classes.": "box_predictor.cls_score.",
    "deltas.": "box_predictor.bbox_pred.",
}
RETINA, FASTER = "retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn"
FROZEN = (RETINA, FASTER)
"""Those whose keys leave out what their batch norms add to the variance."""
NORM_EPS = 1e-5
"""What our batch norms add."""
FAMILIES: Mapping[str, Family] = {
    RETINA: Family(
        "retinanet",
        {
            "neck_options": {"fpn": {"extra": "output", "relu_before_extra": True}},
            "head_options": {"whole_pixels": True},
            "postprocess_options": {"score": 0.05, "nms_iou": 0.5, "max_detections": 300},
        },
        9,
        _RETINA,
    ),
    "retinanet_resnet50_fpn_v2": Family(
        "retinanet",
        {
            "neck_options": {"fpn": {"extra": "input", "relu_before_extra": True}},
            "head_options": {"norm": "group_norm", "whole_pixels": True},
            "criterion_options": {"box_loss": "giou"},
            "postprocess_options": {"score": 0.05, "nms_iou": 0.5, "max_detections": 300},
        },
        9,
        _RETINA,
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
        {
            "head.class_tower": (f"head.{_CLASSES}", _name_flat_tower),
            "head.box_tower": (f"head.{_BOXES}", _name_flat_tower),
            "head.classes": (f"head.{_CLASSES}.cls_logits", str),
            "head.deltas": (f"head.{_BOXES}.bbox_reg", str),
            "head.quality": (f"head.{_BOXES}.bbox_ctrness", str),
        },
    ),
    FASTER: Family(
        "faster_rcnn",
        {
            "head_options": {"whole_pixels": True},
            "region_options": {"samples": 2, "aligned": False},
            "postprocess_options": {"score": 0.05, "nms_iou": 0.5, "max_detections": 100},
        },
        1,
        {
            "head.tower": ("rpn.head", TOWER),
            "head.objectness": ("rpn.head.cls_logits", str),
            "head.deltas": ("rpn.head.bbox_pred", str),
            "stages.0.head": ("roi_heads", by_patterns((rf"^{re.escape(k)}", v) for k, v in _REGIONS.items())),
        },
        "roi_heads.box_predictor.cls_score.weight",
        background=1,
    ),
}


# how older files called the same
_RENEWED = by_patterns(
    [
        (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(?=weight|bias)", r"\1.0."),
        (r"^rpn\.head\.conv\.(?=weight|bias)", "rpn.head.conv.0.0."),
    ]
)
_FLAT_TOWER = re.compile(rf"^(head\.(?:{_CLASSES}|{_BOXES})\.conv)\.(\d+)\.(?=weight|bias)")


def looks_like_torchvision(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a detector of torchvision."""
    return has_keys(unwrap_state(content), r"backbone\.body\.", ".*head")


def import_torchvision(content: Any, *, source: str | os.PathLike[str], published: str | None = None) -> Detector:
    """Build the detector that ``content`` holds the parameters of, with its own preprocessing and test settings.

    Their 91 outputs are COCO's own ids, of which eleven stand for nothing; the first of Faster R-CNN is the background.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages, and for its name: ``retinanet_resnet50_fpn_coco-eeacb38b.pth``.
        published: torchvision's name of the detector, where the file has another; with ``_coco`` behind it that of its
            COCO weights, and of what was trained from them.

    Raises:
        CheckpointError: If it is another detector, its name is of another, nothing tells what the norms add, or it does
            not fit; keys are named.
    """
    state = unwrap_state(content)
    title = _title_of(state)
    if title not in FAMILIES:
        raise CheckpointError(
            f"{source} is {title} of torchvision, which is not read here; what is: {', '.join(FAMILIES)}"
        )
    is_exact = _adds_nothing(state, title, source, published)
    state = _renew(state)
    family = FAMILIES[title]
    layout = f"torchvision's {title}"
    rows = read_shape(
        state,
        family.classifier,
        source=source,
        layout=layout,
        ndim=2 if family.background else 4,
        least=family.slots + family.background,
    )[0]
    num_classes = rows // family.slots - family.background
    with Uninitialized():
        detector = create_model(family.model, num_classes=num_classes, backbone="resnet50", **family.options)
    naming = by_parts(
        {
            "backbone": ("backbone.body", name_resnet),
            "neck": ("backbone.fpn", name_fpn(detector.neck)),
            **family.parts,
        }
    )

    def change(key: str, value: Tensor) -> Tensor:
        if is_exact and key.endswith(".running_var"):  # theirs divides by the root of the variance alone
            return value - NORM_EPS
        if family.background and key.startswith("stages.0.head.classes."):  # our background comes last
            return value.roll(-1, dims=0)
        if family.background and key.startswith("stages.0.head.deltas."):  # and has no box
            return value[4:]
        return value

    load_renamed(detector, state, naming, source=source, layout=layout, change=change)
    names, category_ids = name_by_coco_id(num_classes, first=family.background)
    detector.card = replace(
        detector.card,
        names=names,
        category_ids=category_ids,
        preprocessing=Preprocessing(size=(800, 1333), fit="keep_ratio", interpolation="opencv"),
        origin=f"{layout}, {num_classes} classes",
    )
    return detector


def _title_of(state: Mapping[str, Tensor]) -> str:
    """Torchvision's name of the detector, as its keys tell it, or what else it is."""
    if has_keys(state, r"(rpn|roi_heads)\."):
        return _two_stage_title_of(state)
    if has_keys(state, rf"head\.{_BOXES}\.bbox_ctrness\."):
        return "fcos_resnet50_fpn"
    has_norms = has_keys(state, rf"head\.({_CLASSES}|{_BOXES})\.conv\.\d+\.1\.")
    return "retinanet_resnet50_fpn_v2" if has_norms else RETINA


def _two_stage_title_of(state: Mapping[str, Tensor]) -> str:
    parts = {"mask": "maskrcnn", "keypoint": "keypointrcnn"}
    kind = next((name for part, name in parts.items() if has_keys(state, rf"roi_heads\.{part}_")), "fasterrcnn")
    if not has_keys(state, r"backbone\.body\.layer1\."):
        return f"{kind} on another backbone than ResNet-50"
    return f"{kind}_resnet50_fpn{'_v2' if has_keys(state, r'roi_heads[.]box_head[.][0-9]') else ''}"


def _adds_nothing(
    state: Mapping[str, Tensor], title: str, source: str | os.PathLike[str], published: str | None
) -> bool:
    """Whether the batch norms of the detector ``title`` add nothing to the variance.

    Those that count batches are no frozen ones.
    """
    told = Path(source).name if published is None else published
    stem = re.sub(r"(-[0-9a-f]{8})?(\.pth|\.pt|\.safetensors)?$", "", told.lower())
    if published is not None and stem.removesuffix("_coco") != title:
        raise CheckpointError(f"{source} is torchvision's {title}, and {published!r} names another; leave out the name")
    if title not in FROZEN or has_keys(state, r".*\.num_batches_tracked$"):
        return False
    if stem.removesuffix("_coco") != title:
        raise CheckpointError(
            f"{source} is torchvision's {title} with frozen batch norms, and what these add to the variance is told "
            f"neither by its keys nor by its name: name it by --as NAME or load(..., source=NAME): {title}_coco for "
            f"torchvision's COCO weights and what was trained from them, {title} for what was not"
        )
    return stem.endswith("_coco")


def _renew(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys as they are since 2022, where each convolution of FPN, RPN and RetinaNet's towers is a block of its own."""
    is_flat = _title_of(state) == RETINA

    def name(key: str) -> str:
        # every other layer of a flat tower is an activation
        key = _FLAT_TOWER.sub(lambda found: f"{found[1]}.{int(found[2]) // 2}.0.", key) if is_flat else key
        return _RENEWED(key)

    return {name(key): value for key, value in state.items()}
