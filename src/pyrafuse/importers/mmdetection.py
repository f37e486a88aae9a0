"""mmdetection's dense detectors -> ours: RetinaNet, with NAS-FPN, Libra and guided anchors; ATSS, DDOD and FCOS.

What a key means was learnt from the published files' keys and shapes.
state dict -> which of seven detectors, on which ResNet -> ours -> every key renamed, none left over
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.base.errors import CheckpointError
from pyrafuse.core.pyramid import Neck
from pyrafuse.importers.asff import COCO_IDS, COCO_NAMES
from pyrafuse.importers.mmdetection_blocks import name_bfp
from pyrafuse.importers.mmdetection_necks import name_fpn, name_nas_fpn
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
from pyrafuse.models.uninitialized import Uninitialized
from pyrafuse.necks.registry import NeckChain

DEPTHS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}
"""(has bottlenecks, blocks of the third stage) -> depth of the ResNet."""


@dataclass(frozen=True)
class Family:
    """One of the detectors.

    Attributes:
        title: In words.
        model: Its registered name here.
        marks: Patterns of keys that only its checkpoints have all of, where they are asked for in this order; of
            several keys each, so that a file that lacks one is still told apart.
        classifier: The key whose channels tell the number of classes.
        num_slots: Anchors a cell.
        style: Where the ResNet of its published checkpoints strides; the keys do not tell.
        outputs: Ours -> theirs, for the convolutions that end the head's branches.
        options: Of our model, where its defaults are not what the checkpoints were trained with.
    """

    title: str
    model: str
    marks: tuple[str, ...]
    classifier: str
    num_slots: int
    style: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


_RETINA = {"classes": "retina_cls", "deltas": "retina_reg"}
_GUIDES = {
    "location": "conv_loc",
    "shape": "conv_shape",
    "class_adaption": "feature_adaption_cls.conv_adaption",
    "class_adaption.offset": "feature_adaption_cls.conv_offset",
    "box_adaption": "feature_adaption_reg.conv_adaption",
    "box_adaption.offset": "feature_adaption_reg.conv_offset",
}
_ATSS = {"classes": "atss_cls", "deltas": "atss_reg"}
_RETINA_KEYS = r"bbox_head\.retina_(cls|reg)\."
_LEVEL_NORMS = r"bbox_head\.(cls|reg)_convs\.\d+\.\d+\.bn\."
_FCOS = {"classes": "conv_cls", "deltas": "conv_reg", "quality": "conv_centerness"}

FAMILIES = (
    Family(
        "GA-RetinaNet", "ga_retinanet", (_RETINA_KEYS, r"bbox_head\.(conv_loc|conv_shape|feature_adaption_\w+)\."),
        "retina_cls.weight", 1, "caffe", {**_RETINA, **_GUIDES}, {"criterion_options": {"inverted_locations": True}},
    ),
    Family(
        "DDOD", "ddod", (r"bbox_head\.atss_iou\.",), "atss_cls.weight", 1, "pytorch", {**_ATSS, "quality": "atss_iou"}
    ),
    Family(
        "ATSS", "atss", (r"bbox_head\.atss_(cls|reg|centerness)\.",), "atss_cls.weight", 1, "pytorch",
        {**_ATSS, "quality": "atss_centerness"},
    ),
    Family("FCOS", "fcos", (r"bbox_head\.conv_centerness\.",), "conv_cls.weight", 1, "caffe", _FCOS),
    Family(
        "RetinaNet with NAS-FPN", "retinanet_nas_fpn", (_RETINA_KEYS, _LEVEL_NORMS), "retina_cls.weight", 9, "pytorch",
        _RETINA,
    ),
    Family("RetinaNet", "retinanet", (_RETINA_KEYS,), "retina_cls.weight", 9, "pytorch", _RETINA),
)  # fmt: skip
SEPARATE_NORMS = Family(
    "RetinaNet with norms of each level", "retinanet", (_RETINA_KEYS, _LEVEL_NORMS), "retina_cls.weight", 9, "pytorch",
    _RETINA,
    {
        "head_options": {"norm": "level_norm"},
        "neck_options": {"fpn": {"norm": "batch_norm", "lateral_norm": False, "relu_before_extra": True}},
        "criterion_options": {"assigner": {"negative_iou": 0.5}},
    },
)  # fmt: skip
"""NAS-FPN's head on a plain FPN, the base that its paper compares with."""
LIBRA = Family("Libra RetinaNet", "libra_retinanet", (_RETINA_KEYS,), "retina_cls.weight", 9, "pytorch", _RETINA)
HEAD = "bbox_head."

# how older files called the same
_RENEWED = by_patterns(
    [
        (r"^bbox_head\.fcos_(cls|reg|centerness)\.", r"bbox_head.conv_\1."),
        (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.conv_offset\.", r"\1.conv.conv_offset."),
        (r"^(bbox_head\.scales\.\d+)$", r"\1.scale"),
    ]
)


def looks_like_mmdetection(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a dense detector of mmdetection."""
    return family_of(renew(content)) is not None


def import_mmdetection(
    content: Any, *, source: str | os.PathLike[str], style: str | None = None, options: Mapping[str, Any] | None = None
) -> Detector:
    """Build the detector that ``content`` holds the parameters of.

    The card names the model and its origin; how images are made ready is for the caller to say, as no key tells.

    Args:
        content: As `read_tensors` gives it.
        source: Of the file, for messages.
        style: Where the ResNet strides, ``pytorch`` or ``caffe``; by default as the published checkpoints of the
            detector do.
        options: Further options of the model.

    Raises:
        CheckpointError: If it is none of the detectors, or does not fit; keys are named.
    """
    state = renew(content)
    family = family_of(state)
    if family is None:
        titles = ", ".join(f.title for f in (*FAMILIES, SEPARATE_NORMS, LIBRA))
        raise CheckpointError(f"{source} is no dense detector of mmdetection that is known here: {titles}")
    has_bias = family.model == "fcos" and HEAD + "cls_convs.0.conv.bias" in state
    options = join_options(
        family.options, {"head_options": {"redundant_bias": True}} if has_bias else {}, options or {}
    )
    trunk = {"style": style or family.style, **grouping_of(state, source), **options.pop("backbone_options", {})}
    depth = depth_of(state, source)
    layout = f"mmdetection's {family.title}"
    classifier = HEAD + family.classifier
    num_classes = read_shape(state, classifier, source=source, layout=layout, least=family.num_slots)[0]
    num_classes //= family.num_slots
    with Uninitialized():
        detector = create_model(
            family.model,
            num_classes=num_classes,
            backbone=f"resnet{depth}",
            backbone_options=trunk,
            **options,
        )
    naming, aliases = name_detector(detector, family)
    counters = {k: v for k, v in detector.state_dict().items() if k.startswith("criterion.")}
    load_renamed(detector, {**state, **counters}, naming, source=source, layout=layout, aliases=aliases)
    fill_card(detector, num_classes, what=f"{family.title} on ResNet-{depth}")
    return detector


def name_detector(detector: Detector, family: Family) -> tuple[Naming, Naming]:
    """Names of a whole detector of ``family``, and which key is in effect for each of theirs (see `rename`)."""
    last = len(detector.neck.features) - 1
    is_repeated = _LEVEL_NORMS in family.marks
    tower = [
        (r"^class_tower\.", "cls_convs."),
        (r"^box_tower\.", "reg_convs."),
        (r"^(\w+_convs)\.norms\.(\d+)\.(\d+)\.", r"\1.\3.\2.bn." if is_repeated else r"\1.\2.gn."),
        # theirs repeats the convolutions that all levels share; the last level's are in effect
        (r"^(\w+_convs)\.convs\.(\d+)\.", rf"\1.{last}.\2.conv." if is_repeated else r"\1.\2.conv."),
        (r"\.conv\.offset\.", ".conv.conv_offset."),
        (r"^scales\.(\d+)$", r"scales.\1.scale"),
    ]
    outputs = sorted(family.outputs.items(), key=lambda pair: -len(pair[0]))
    ends = [(rf"^{re.escape(ours)}\.(?=weight|bias)", f"{theirs}.") for ours, theirs in outputs]
    parts: dict[str, tuple[str, Naming]] = {
        "backbone": ("backbone", name_resnet),
        "head": (HEAD.rstrip("."), by_patterns([*ends, *tower])),
        "criterion": ("criterion", str),  # counters of ours that theirs does not keep
    }
    if isinstance(detector.neck, NeckChain):
        for i, neck in enumerate(detector.neck.necks):
            parts[f"neck.necks.{i}"] = (f"neck.{i}", name_bfp if i else name_fpn(_neck(neck)))
    else:
        is_nas = family.model == "retinanet_nas_fpn"
        parts["neck"] = ("neck", name_nas_fpn(detector.neck) if is_nas else name_fpn(detector.neck))
    repeats = [(rf"^(bbox_head\.(?:cls|reg)_convs)\.[0-{last - 1}]\.(\d+)\.conv\.", rf"\1.{last}.\2.conv.")]
    return by_parts(parts), by_patterns(repeats if is_repeated else [])


def join_options(*many: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings in one, later values before earlier ones."""
    joined: dict[str, Any] = {}
    for options in many:
        for name, value in options.items():
            old = joined.get(name)
            joined[name] = (
                join_options(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
            )
    return joined


def _neck(module: nn.Module) -> Neck:
    assert isinstance(module, Neck)
    return module


def renew(content: Any) -> dict[str, Tensor]:
    """The parameters in ``content``, under the names that newer files have."""
    return {_RENEWED(key): value for key, value in unwrap_state(content).items()}


def family_of(state: Mapping[str, Tensor]) -> Family | None:
    """Which of the dense detectors the keys of ``state`` (see `renew`) are of, if any."""
    if not has_keys(state, r"backbone\.layer1\."):
        return None
    family = next((f for f in FAMILIES if has_keys(state, *f.marks)), None)
    if family is not None and family.model == "retinanet_nas_fpn" and has_keys(state, r"neck\.fpn_convs\."):
        return SEPARATE_NORMS
    is_balanced = has_keys(state, r"neck\.1\.")
    return LIBRA if family is not None and family.model == "retinanet" and is_balanced else family


def fill_card(detector: Detector, num_classes: int, *, what: str) -> None:
    """Name the classes, COCO's if there are as many, and tell the origin."""
    is_coco = num_classes == len(COCO_NAMES)
    detector.card = replace(
        detector.card,
        names=COCO_NAMES if is_coco else tuple(str(i) for i in range(num_classes)),
        category_ids=COCO_IDS if is_coco else tuple(range(1, num_classes + 1)),
        origin=f"mmdetection checkpoint: {what}, {num_classes} classes",
    )


def depth_of(state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> int:
    """Depth of the ResNet in ``state``."""
    blocks = {int(found[1]) for key in state if (found := re.match(r"backbone\.layer3\.(\d+)\.", key))}
    is_deep = has_keys(state, r"backbone\.layer\d\.\d+\.conv3\.")
    if (is_deep, len(blocks)) not in DEPTHS:
        raise CheckpointError(f"{source} has a ResNet with {len(blocks)} blocks in its third stage, which none has")
    return DEPTHS[is_deep, len(blocks)]


def grouping_of(state: Mapping[str, Tensor], source: str | os.PathLike[str]) -> dict[str, int]:
    """Options of a ResNeXt's backbone, by its first 3x3 convolution; none of a ResNet's."""
    key, layout = "backbone.layer1.0.conv2.weight", "a ResNet of mmdetection"
    width, of_group = read_shape(state, key, source=source, layout=layout)[:2]
    if width % of_group:
        raise CheckpointError(
            f"{source} looks like {layout}, but does not fit; of another shape: {key}, whose {width} channels are no "
            f"groups of {of_group}"
        )
    return {} if width == of_group else {"groups": width // of_group, "base_width": of_group}
