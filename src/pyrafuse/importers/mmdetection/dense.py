"""mmdetection's dense detectors -> ours: RetinaNet, with NAS-FPN, Libra and guided anchors; ATSS, DDOD and FCOS.

What a key means was learnt from the published files' keys and shapes.
state dict -> which of seven detectors, on which ResNet -> ours -> every key renamed, none left over
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyrafuse.backbones.resnet import name_resnet
from pyrafuse.importers import origins
from pyrafuse.importers.engine import Changes, File, Found, Importer, Keys, State
from pyrafuse.importers.mmdetection.necks import name_bfp, name_fpn, name_nas_fpn
from pyrafuse.importers.mmdetection.trunks import read_trunk
from pyrafuse.importers.mmdetection.usage import read_classes, tell_usage
from pyrafuse.importers.renaming import Naming, by_parts, by_patterns, has_keys
from pyrafuse.models.detector import Detector
from pyrafuse.necks.registry import NeckChain


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
        outputs: Ours -> theirs, for the convolutions that end the head's branches.
        changes: Of our model, where it is not what the checkpoints were trained with.
    """

    title: str
    model: str
    marks: tuple[str, ...]
    classifier: str
    num_slots: int
    outputs: Mapping[str, str] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)


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
        "retina_cls.weight", 1, {**_RETINA, **_GUIDES}, {"criterion": {"inverted_locations": True}},
    ),
    Family(
        "DDOD", "ddod", (r"bbox_head\.atss_iou\.",), "atss_cls.weight", 1, {**_ATSS, "quality": "atss_iou"}
    ),
    Family(
        "ATSS", "atss", (r"bbox_head\.atss_(cls|reg|centerness)\.",), "atss_cls.weight", 1,
        {**_ATSS, "quality": "atss_centerness"},
    ),
    Family("FCOS", "fcos", (r"bbox_head\.conv_centerness\.",), "conv_cls.weight", 1, _FCOS),
    Family(
        "RetinaNet with NAS-FPN", "retinanet_nas_fpn", (_RETINA_KEYS, _LEVEL_NORMS), "retina_cls.weight", 9,
        _RETINA,
    ),
    Family("RetinaNet", "retinanet", (_RETINA_KEYS,), "retina_cls.weight", 9, _RETINA),
)  # fmt: skip
SEPARATE_NORMS = Family(
    "RetinaNet with norms of each level", "retinanet", (_RETINA_KEYS, _LEVEL_NORMS), "retina_cls.weight", 9,
    _RETINA,
    {
        "head": {"norm": "level_norm"},
        "neck": {"norm": "batch_norm", "lateral_norm": False, "relu_before_extra": True},
        "criterion": {"assigner": {"negative_iou": 0.5}},
    },
)  # fmt: skip
"""NAS-FPN's head on a plain FPN, the base that its paper compares with."""
LIBRA = Family("Libra RetinaNet", "libra_retinanet", (_RETINA_KEYS,), "retina_cls.weight", 9, _RETINA)
HEAD = "bbox_head."
MARKS = (r"backbone\.layer1\.", r"bbox_head\.(retina_(cls|reg)|atss_(cls|reg|centerness|iou)|conv_centerness)\.")

# how older files called the same
_RENEWED = by_patterns(
    [
        (r"^bbox_head\.fcos_(cls|reg|centerness)\.", r"bbox_head.conv_\1."),
        (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.conv_offset\.", r"\1.conv.conv_offset."),
        (r"^(bbox_head\.scales\.\d+)$", r"\1.scale"),
    ]
)


def describe_dense(file: File) -> Found:
    """Which dense detector ``file`` is, and how it is used."""
    family = family_of(file.state)
    assert family is not None
    trunk = read_trunk(file, reads_deformable_heads=family.model == "ddod")
    layout = f"mmdetection's {family.title}"
    published = "retinanet_level_norms" if family is SEPARATE_NORMS else family.model
    usage = tell_usage(file, family=published, trunk=trunk, layout=layout)
    least = family.num_slots
    num_classes = file.shape(HEAD + family.classifier, layout=layout, least=least)[0] // least
    has_bias = family.model == "fcos" and HEAD + "cls_convs.0.conv.bias" in file.state
    return Found(
        layout=layout,
        model=family.model,
        edits=[
            {"backbone": trunk.edit(usage.style), **family.changes},
            {"head": {"redundant_bias": True}} if has_bias else {},
            usage.changes,
        ],
        keys=lambda detector: name_detector(detector, family),
        classes=read_classes(file, num_classes),
        preprocessing=usage.preprocessing,
        origin=f"mmdetection checkpoint: {family.title} on ResNet-{trunk.depth}, {num_classes} classes; {usage.origin}",
    )


def name_detector(detector: Detector, family: Family) -> Keys:
    """Names of a whole detector of ``family``."""
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
    }
    if isinstance(detector.neck, NeckChain):
        for i, neck in enumerate(detector.neck.necks):
            parts[f"neck.necks.{i}"] = (f"neck.{i}", name_bfp if i else name_fpn(neck))
    else:
        is_nas = family.model == "retinanet_nas_fpn"
        parts["neck"] = ("neck", name_nas_fpn(detector.neck) if is_nas else name_fpn(detector.neck))
    repeats = [(rf"^(bbox_head\.(?:cls|reg)_convs)\.[0-{last - 1}]\.(\d+)\.conv\.", rf"\1.{last}.\2.conv.")]
    return Keys(by_parts(parts), by_patterns(repeats if is_repeated else []))


def renew(state: State) -> State:
    """The parameters under the names that newer files have."""
    return {_RENEWED(key): value for key, value in state.items()}


def family_of(state: State) -> Family | None:
    """Which of the dense detectors the keys of ``state`` (see `renew`) are of, if any."""
    if not has_keys(state, r"backbone\.layer1\."):
        return None
    family = next((f for f in FAMILIES if has_keys(state, *f.marks)), None)
    if family is not None and family.model == "retinanet_nas_fpn" and has_keys(state, r"neck\.fpn_convs\."):
        return SEPARATE_NORMS
    is_balanced = has_keys(state, r"neck\.1\.")
    return LIBRA if family is not None and family.model == "retinanet" and is_balanced else family


DENSE = Importer(origins.MMDETECTION, MARKS, describe_dense, renew)
