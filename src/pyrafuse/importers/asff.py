"""Official ASFF checkpoints -> ours: baseline, ASFF, ASFF* and MobileNetV2 with and without ASFF.

arXiv:1911.09516. What a key means was learnt from the published files' keys and shapes.
state dict -> which of five layouts -> our detector -> every key renamed, none left over
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
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


STACKS = ({0: (0,), 1: (1,), 3: (3, 0), 4: (3, 1), 5: (4,)},) * 2 + (
    {0: (0, 0), 1: (0, 1), 2: (1,), 4: (3,), 5: (4,), 7: (6,)},
)
"""Of each level, finest first: our place in its stack -> number in their list, from the stack's first on, and in the
residual block there. What lies between has no parameters."""


@dataclass(frozen=True)
class Layout:
    """One of the official model files: a list of modules that runs on from level to level, coarsest first.

    Attributes:
        name: In words.
        is_mobile: On MobileNetV2.
        is_fused: With ASFF.
        first: Number of the first module behind the trunk.
        gap: Steps from the end of one level's stack to the reduction of the next.
    """

    name: str
    is_mobile: bool
    is_fused: bool
    first: int
    gap: int

    def start(self, level: int) -> int:
        """Number of the first module of a level's stack; a finer one starts two behind its reduction."""
        return self.first if level == LEVELS - 1 else self.end(level + 1) + self.gap + 2

    def end(self, level: int) -> int:
        """Number of the last module of a level's stack."""
        return self.start(level) + max(STACKS[level].values())[0]

    def head(self, level: int) -> str:
        """Prefix of a level's head."""
        return f"level_{2 - level}_header" if self.is_mobile or self.is_fused else _listed(self.end(level) + 2)

    def widening(self, level: int) -> str | None:
        """The 3x3 convolution that ends a level, where there is one."""
        if self.is_mobile:
            return None if self.is_fused else f"level_{2 - level}_conv"
        return None if self.is_fused and level else _listed(self.end(level) + 1)


def _listed(number: int, *inner: int) -> str:
    return ".".join((f"module_list.{number}", *(f"module_list.0.{place}" for place in inner)))


LAYOUTS = {
    (layout.is_mobile, layout.is_fused): layout
    for layout in (
        Layout("YOLOv3 baseline on Darknet-53", is_mobile=False, is_fused=False, first=11, gap=3),
        Layout("YOLOv3 with ASFF on Darknet-53", is_mobile=False, is_fused=True, first=11, gap=1),
        Layout("YOLOv3 on MobileNetV2", is_mobile=True, is_fused=False, first=19, gap=1),
        Layout("YOLOv3 with ASFF on MobileNetV2", is_mobile=True, is_fused=True, first=19, gap=1),
    )
}


def describe_asff(file: File) -> Found:
    """Which of the official models ``file`` is, with its own anchors, preprocessing and test settings."""
    state = file.state
    is_mobile, is_fused = file.has(r"module_list\.\d+\.conv\.\d"), file.has(r".*\.weight_levels\.weight$")
    has_rfb = not is_mobile and file.has(r".*\.rfb\.branch_3\.2\.weight$")
    # channels that a level is squeezed to before the fusion's weights: 8 in ASFF*, else 16
    squeezed = _most_common(len(value) for key, value in state.items() if ".weight_level_" in key and value.ndim)
    layout = LAYOUTS[is_mobile, is_fused]
    outputs = [f"{layout.head(level)}.conv.{kind}" for level in range(LEVELS) for kind in ("weight", "bias")]
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
        edits=[_edit(layout, has_rfb=has_rfb, weight_channels=squeezed or 16)],
        keys=lambda _: Keys(asff_naming(layout), change=_reorder),
        classes=name_classes(num_classes, knows_voc=False),
        preprocessing=Preprocessing(size=(416, 416) if is_mobile else (608, 608), interpolation="opencv"),
        origin=f"official ASFF checkpoint: {name}, {num_classes} classes",
    )


ASFF = Importer(origins.ASFF, (r".*\.guide_wh\.weight$", r"module_list\.0\."), describe_asff, tells_all=True)


def asff_naming(layout: Layout) -> Naming:
    """Our key -> the official key."""
    return by_modules(_module_pairs(layout), then=lambda rest: re.sub(r"(^|\.)norm\.", r"\1batch_norm.", rest))


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
    for level, stack in enumerate(STACKS):
        start = layout.start(level)
        for place, (number, *inner) in stack.items():
            yield f"{yolo}.stacks.{level}.{place}", _listed(start + number, *inner)
        if level < LEVELS - 1:
            yield f"{yolo}.reductions.{level}", _listed(start - 2)
        if widening := layout.widening(level):
            yield f"{yolo}.widenings.{level}", widening
        theirs = layout.head(level)
        yield f"head.guides.{level}", f"{theirs}.guide_wh"
        yield f"head.outputs.{level}", f"{theirs}.conv"
        adaption = f"head.adaptions.{level}"
        yield f"{adaption}.offset", f"{theirs}.Feature_adaption.conv_offset"
        yield f"{adaption}.conv", f"{theirs}.Feature_adaption.dconv"
        for branch in range(4):
            yield f"{adaption}.rfb.branches.{branch}", f"{theirs}.Feature_adaption.rfb.branch_{branch}"
    if layout.is_fused:
        yield from _fusion_pairs("conv" if layout.is_mobile else "fusion")


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
