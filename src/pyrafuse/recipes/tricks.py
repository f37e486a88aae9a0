"""The ingredients of ASFF's strong baseline, each a switch over a recipe: what it sets when it is on, and when off.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.1.
recipe as plain values -> `switch` -> recipe as plain values
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pyrafuse.base.errors import unknown_name
from pyrafuse.base.typed_values import to_plain, with_value
from pyrafuse.training.settings import sizes_around

DROPBLOCK_PHASES = ((5, 5, 3, 1), (80, 7, 5, 3), (150, 7, 7, 7))
"""ASFF's squares: first epoch, then sides in cells at strides 8, 16, 32."""

GUIDED = "model.options.head.guided"
ADAPTION = "model.options.head.adaption"
RFB = "model.options.head.rfb"


@dataclass(frozen=True)
class Trick:
    """One ingredient.

    Attributes:
        summary: What it does.
        on: Settings by their dotted name that switch it on; a function gives a value for the recipe's plain values.
        off: Those that switch it off.
        is_default: Whether the model and the recipe have it where they say nothing.
    """

    summary: str
    on: Mapping[str, Any]
    off: Mapping[str, Any]
    is_default: bool = True


def _flag(summary: str, name: str, *, is_default: bool = True) -> Trick:
    return Trick(summary, {name: True}, {name: False}, is_default)


TRICKS: Mapping[str, Trick] = MappingProxyType(
    {
        "mixup": Trick(
            "blend every image with another one",
            {"augmentation.mixup_probability": 1.0},
            {"augmentation.mixup_probability": 0.0},
        ),
        "cosine": Trick(
            "let the learning rate fall by half a cosine instead of in steps",
            {"schedule.kind": "cosine"},
            {"schedule.kind": "step"},
        ),
        "sync_bn": _flag("batch norms see the batch of all devices", "run.sync_bn"),
        "label_smoothing": _flag(
            "classes learn 1 - 1/K and 1/K instead of 1 and 0; two classes 2/3 and 1/3, one class 1",
            "model.options.criterion.label_smoothing",
            is_default=False,
        ),
        "multi_scale": Trick(
            "draw the input's size anew for every ten batches, around data.size",
            {"data.sizes": lambda values: _around(values)},
            {"data.sizes": ()},
            is_default=False,
        ),
        "guided_anchoring": Trick(
            "predict the anchors' shapes, and an anchor-free guess a cell; feature adaption needs it",
            {GUIDED: True},
            {GUIDED: False, ADAPTION: False, RFB: False},
        ),
        "feature_adaption": Trick(
            "sample features by the guided shapes, through a deformable convolution",
            {GUIDED: True, ADAPTION: True},
            {ADAPTION: False, RFB: False},
        ),
        "iou_loss": _flag("boxes learn by their overlap besides the L1 term", "model.options.criterion.iou"),
        "rfb": Trick(
            "a receptive field block before the feature adaption (ASFF*)",
            {GUIDED: True, ADAPTION: True, RFB: True},
            {RFB: False},
            is_default=False,
        ),
        "dropblock": Trick(
            "drop squares of the neck's maps, larger ones as training goes on (ASFF*)",
            {"dropblock.phases": DROPBLOCK_PHASES, "dropblock.keep_prob": 0.9},
            {"dropblock.phases": ()},
            is_default=False,
        ),
        "spp": _flag(
            "pool the coarsest level over 5, 9 and 13 cells", "model.options.necks.yolo_fpn.spp"
        ),
    }
)  # fmt: skip


def switch(values: Mapping[str, Any], name: str, *, on: bool) -> dict[str, Any]:
    """Switch a trick in a recipe.

    Args:
        values: The recipe as plain values, `to_plain`, or a part of them.
        name: One of `TRICKS`; ``-`` may stand for ``_``.
        on: Whether to switch it on, else off.

    Raises:
        UnknownNameError: If there is no such trick.
    """
    name = name.strip().replace("-", "_")
    if name not in TRICKS:
        raise unknown_name("trick", name, TRICKS)
    changed = dict(values)
    for path, value in (TRICKS[name].on if on else TRICKS[name].off).items():
        changed = with_value(changed, path.split("."), to_plain(value(values) if callable(value) else value))
    return changed


def tricks_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tricks that are on in a recipe, given as plain values."""
    return tuple(name for name, trick in TRICKS.items() if all(_is_set(values, p, v) for p, v in trick.on.items()))


def _is_set(values: Mapping[str, Any], path: str, wanted: Any) -> bool:
    inner: Any = values
    for part in path.split("."):
        if part not in inner:
            first = next(trick for trick in TRICKS.values() if path in trick.on)  # the setting's own trick
            return first.is_default == bool(wanted)
        inner = inner[part]
    return bool(inner) if callable(wanted) else inner == to_plain(wanted)


def with_size(values: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """``values`` with another ``data.size``; ``data.sizes`` that lie around the old one lie around the new one."""
    changed = with_value(values, ["data", "size"], size)
    if (values.get("data") or {}).get("sizes") == _around(values):
        changed = with_value(changed, ["data", "sizes"], _around(changed))
    return changed


def _around(values: Mapping[str, Any]) -> Any:
    """``data.sizes`` that lie around ``data.size``; in a word where another one decides the size."""
    size = (values.get("data") or {}).get("size")
    return "around" if size is None else to_plain(sizes_around(size))
