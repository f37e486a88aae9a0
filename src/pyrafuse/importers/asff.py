"""Official ASFF checkpoints -> ours: baseline, ASFF, ASFF* and MobileNetV2 with and without ASFF.

arXiv:1911.09516. What a key means was learnt from the published files' keys and shapes.
state dict -> which of five layouts -> our detector -> every key renamed, none left over
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.importers import origins
from pyrafuse.importers.class_names import name_classes
from pyrafuse.importers.engine import File, Found, Importer, Keys
from pyrafuse.importers.renaming import Naming, by_modules

MOBILE_ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (42, 119)), ((116, 90), (156, 198), (373, 326)))
LEVELS = 3
SLOTS = 4
"""Three guided anchors and the anchor-free guess of each cell."""


@dataclass(frozen=True)
class Layout:
    """One of the official model files.

    Attributes:
        name: In words.
        is_mobile: On MobileNetV2.
        is_fused: With ASFF.
        stacks: For each level, finest first: where the list of modules has its 1x1 and 3x3 convolutions, in order.
        reductions: Likewise the 1x1 convolutions before the upsampling, finest first.
        widenings: The 3x3 convolution that ends each level, by level.
        heads: Prefix of each level's head.
    """

    name: str
    is_mobile: bool
    is_fused: bool
    stacks: tuple[tuple[str, ...], ...]
    reductions: tuple[str, ...]
    widenings: Mapping[int, str]
    heads: tuple[str, ...]


def _layout(name: str, *, is_mobile: bool, is_fused: bool, first: int, gap: int) -> Layout:
    """Number the modules after the trunk, which ends before ``first``; ``gap`` modules stand between two stacks."""
    listed = "module_list.{}".format
    pair = "module_list.{}.module_list.0.{}".format
    coarse = (pair(first, 0), pair(first, 1), *map(listed, (first + 1, first + 3, first + 4, first + 6)))
    stacks, reductions = [coarse], []
    last = first + 6
    for _ in range(2):
        reduce = last + gap
        start = reduce + 2
        stacks.insert(0, (listed(start), listed(start + 1), pair(start + 3, 0), pair(start + 3, 1), listed(start + 4)))
        reductions.insert(0, listed(reduce))
        last = start + 4
    ends = tuple(int(stack[-1].split(".")[1]) for stack in stacks)
    if is_mobile:
        widenings = {} if is_fused else {level: f"level_{2 - level}_conv" for level in range(3)}
    elif is_fused:
        widenings = {0: listed(ends[0] + 1)}
    else:
        widenings = {level: listed(end + 1) for level, end in enumerate(ends)}
    separate = is_mobile or is_fused
    heads = tuple(f"level_{2 - level}_header" if separate else listed(end + 2) for level, end in enumerate(ends))
    return Layout(name, is_mobile, is_fused, tuple(stacks), tuple(reductions), widenings, heads)


LAYOUTS = {
    (False, False): _layout("YOLOv3 baseline on Darknet-53", is_mobile=False, is_fused=False, first=11, gap=3),
    (False, True): _layout("YOLOv3 with ASFF on Darknet-53", is_mobile=False, is_fused=True, first=11, gap=1),
    (True, False): _layout("YOLOv3 on MobileNetV2", is_mobile=True, is_fused=False, first=19, gap=1),
    (True, True): _layout("YOLOv3 with ASFF on MobileNetV2", is_mobile=True, is_fused=True, first=19, gap=1),
}


def describe_asff(file: File) -> Found:
    """Which of the official models ``file`` is, with its own anchors, preprocessing and test settings."""
    state = file.state
    is_mobile = any(re.match(r"module_list\.\d+\.conv\.\d", key) for key in state)
    is_fused = any(key.endswith(".weight_levels.weight") for key in state)
    has_rfb = not is_mobile and any(key.endswith(".rfb.branch_3.2.weight") for key in state)
    layout = LAYOUTS[is_mobile, is_fused]
    outputs = [f"{head}.conv.{kind}" for head in layout.heads for kind in ("weight", "bias")]
    num_channels = _most_common(len(state[key]) for key in outputs if key in state and state[key].ndim)
    if num_channels % SLOTS or num_channels // SLOTS < 6:
        found = f"is {tuple(state[outputs[0]].shape)}" if outputs[0] in state else "is missing"
        raise CheckpointError(
            f"{file.source} looks like {layout.name}, but {outputs[0]} {found}; it needs {SLOTS} x (5 + classes) "
            "channels"
        )
    num_classes = num_channels // SLOTS - 5
    name = f"{layout.name}{', RFB (ASFF*)' if has_rfb else ''}"
    return Found(
        layout=name,
        model="yolov3_asff" if is_fused else "yolov3",
        edits=[_edit(layout, has_rfb=has_rfb, weight_channels=_weight_channels(state))],
        keys=lambda _: Keys(asff_naming(layout), change=_reorder),
        classes=name_classes(num_classes, knows_voc=False),
        preprocessing=Preprocessing(size=(416, 416) if is_mobile else (608, 608), interpolation="opencv"),
        origin=f"official ASFF checkpoint: {name}, {num_classes} classes",
    )


ASFF = Importer(origins.ASFF, (r".*\.guide_wh\.weight$", r"module_list\.0\."), describe_asff, tells_all=True)


def asff_naming(layout: Layout) -> Naming:
    """Our key -> the official key."""
    return by_modules(_module_pairs(layout), then=lambda rest: re.sub(r"(^|\.)norm\.", r"\1batch_norm.", rest))


def _weight_channels(state: Mapping[str, Tensor]) -> int:
    """Channels that a level is squeezed to before the fusion's weights: 8 in ASFF*, else 16."""
    return _most_common(len(value) for key, value in state.items() if ".weight_level_" in key and value.ndim) or 16


def _most_common(numbers: Iterable[int]) -> int:
    """What most say, so that one misshapen entry is told apart from the others; 0 where nobody speaks."""
    return next((number for number, _ in Counter(numbers).most_common(1)), 0)


def _edit(layout: Layout, *, has_rfb: bool, weight_channels: int) -> dict[str, Any]:
    necks: dict[str, dict[str, Any]] = {"asff": {"weight_channels": weight_channels}} if layout.is_fused else {}
    head: dict[str, Any] = {"rfb": True} if has_rfb else {}
    # what the published evaluation used: every box that scores, none capped
    postprocess = {"score": 0.001, "nms_iou": 0.65, "max_detections": 0, "max_candidates": 100_000}
    changes: dict[str, Any] = {"necks": necks, "head": head, "postprocess": postprocess}
    if layout.is_mobile:
        changes["backbone"] = {"name": "mobilenet_v2", "classifier_conv": True}
        head |= {"anchors": MOBILE_ANCHORS, "adaption": False}
        necks["yolo_fpn"] = {"activation": "relu6"}
        if layout.is_fused:
            necks["yolo_fpn"]["widen"] = (False, False, False)
            necks["asff"]["activation"] = "relu6"
    return changes


def _module_pairs(layout: Layout) -> Iterator[tuple[str, str]]:
    """(our module, their module), deepest first where one holds another."""
    if layout.is_mobile:
        yield "backbone.layers", "module_list"
    else:
        yield "backbone.stem", "module_list.0"
        for stage, depth in enumerate((1, 2, 8, 8, 4)):
            yield f"backbone.stages.{stage}.0", f"module_list.{2 * stage + 1}"
            for block in range(depth):
                theirs = f"module_list.{2 * stage + 2}.module_list.{block}"
                yield f"backbone.stages.{stage}.{block + 1}.reduce", f"{theirs}.0"
                yield f"backbone.stages.{stage}.{block + 1}.expand", f"{theirs}.1"
    yolo = "neck.necks.0" if layout.is_fused else "neck"
    for level, stack in enumerate(layout.stacks):
        places = (0, 1, 2, 4, 5, 7) if level == 2 else (0, 1, 3, 4, 5)  # what lies between has no parameters
        for place, theirs in zip(places, stack, strict=True):
            yield f"{yolo}.stacks.{level}.{place}", theirs
    for level, theirs in enumerate(layout.reductions):
        yield f"{yolo}.reductions.{level}", theirs
    for level, theirs in layout.widenings.items():
        yield f"{yolo}.widenings.{level}", theirs
    if layout.is_fused:
        yield from _fusion_pairs("conv" if layout.is_mobile else "fusion")
    for level, theirs in enumerate(layout.heads):
        yield f"head.guides.{level}", f"{theirs}.guide_wh"
        yield f"head.outputs.{level}", f"{theirs}.conv"
        adaption = f"head.adaptions.{level}"
        yield f"{adaption}.offset", f"{theirs}.Feature_adaption.conv_offset"
        yield f"{adaption}.conv", f"{theirs}.Feature_adaption.dconv"
        for branch in range(4):
            yield f"{adaption}.rfb.branches.{branch}", f"{theirs}.Feature_adaption.rfb.branch_{branch}"


def _fusion_pairs(suffix: str) -> Iterator[tuple[str, str]]:
    for level in range(3):
        ours, theirs = f"neck.necks.1.levels.{level}", f"level_{2 - level}_{suffix}"
        yield f"{ours}.weigh", f"{theirs}.weight_levels"
        yield f"{ours}.expand", f"{theirs}.expand"
        for source in range(3):
            yield f"{ours}.squeezes.{source}", f"{theirs}.weight_level_{2 - source}"
            if source < level:
                place = level - source - 1  # behind the max-pools
                yield f"{ours}.resizes.{source}.project.{place}", f"{theirs}.stride_level_{2 - source}"
            elif source > level:
                yield f"{ours}.resizes.{source}.project", f"{theirs}.compress_level_{2 - source}"


def _reorder(key: str, value: Tensor) -> Tensor:
    """Turn the weights of the levels around: theirs run coarsest first."""
    if ".weigh." not in key or len(value) != LEVELS:
        return value
    value = value.flip(0)
    if value.ndim == 1 or value.shape[1] % LEVELS:
        return value
    return value.unflatten(1, (LEVELS, -1)).flip(1).flatten(1, 2)
