"""The parameters in the content of a checkpoint: which of several state dicts, and their names without wrappers.

content of a file -> state dicts in it, averaged and live -> one, without ``module.`` and its like, and what was chosen
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pyrafuse.base.printable import list_names, printable

WRAPPERS = (
    "state_dict", "model", "model_state_dict", "model_state", "module", "net", "network", "detector", "weights",
    "params", "student",
)  # fmt: skip
"""Keys under which checkpoints have the parameters."""

PREFIXES = frozenset({"module", "model", "net", "network", "detector", "student"})
"""What wrappers put in front of every name."""

INVISIBLE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
"""What compiled and sharded modules put anywhere in a name."""

AVERAGES = frozenset({"ema", "swa", "averaged", "average", "avg", "shadow", "teacher"})
"""Words of which one stands in the name of averaged weights."""

_OTHER_WORDS = frozenset({"model", "module", "net", "network", "state", "dict", "weights", "params", "parameters", ""})
_COUNTERS = re.compile(r"(n_averaged|num_updates|updates|steps?|decay|initted|it|momentum)")
_DEEPEST = 8


@dataclass(frozen=True)
class Weights:
    """The parameters that were chosen in a checkpoint.

    Attributes:
        entries: Tensors under their names, without what wrappers put in front of these.
        others: What stands among them and is no tensor.
        notes: Sentences that say what was chosen, where there was a choice.
    """

    entries: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_weights(content: Any) -> Weights:
    """The parameters in ``content``, as `read_tensors` gives it; none if it holds none.

    Averaged weights (EMA) come before the live ones beside them; what they leave out, such as statistics that were not
    averaged, is taken from the live ones.
    """
    if not isinstance(content, Mapping):
        return Weights()
    place, found = _find_live(content)
    live, averaged, notes = _split(found)
    others = {str(key): value for key, value in found.items() if not isinstance(value, Tensor)}
    averaged |= dict(_find_averages(content))
    if already := _live_beside_averages(content, averaged):
        notes.append(f"averaged weights (EMA) are taken: they are under {place}, and the live ones under {already}")
        averaged = {}
    for where, values in averaged.items():
        where = printable(where, limit=120)
        if not values:
            notes.append(f"the averaged weights under {where} have no names; the live ones under {place} are taken")
            continue
        common = _match(values, live) if live else {k: v for k, v in values.items() if not _COUNTERS.fullmatch(k)}
        if 2 * len(common) < len(values) or not common:
            continue  # of something else
        left = len(live) - len(common)  # below zero where there are no live ones
        beside = f" instead of the live ones under {place}" if live else ""
        rest = (
            f"; {left} of {len(live)} entries are not averaged, and taken from the live ones" if live and left else ""
        )
        notes.append(f"averaged weights (EMA) under {where} are taken{beside}{rest}")
        return Weights({**live, **common}, others, tuple(notes))
    return Weights(live, others, tuple(notes))


def _find_live(content: Mapping[Any, Any]) -> tuple[str, Mapping[Any, Any]]:
    """Where the live parameters are, and the mapping that holds them; an empty one if there is none."""
    path: list[str] = []
    while len(path) < _DEEPEST:
        wrapped = next((key for key in WRAPPERS if _holds_tensors(content.get(key))), None)
        if wrapped is None:
            break
        path.append(wrapped)
        content = content[wrapped]
    has_any = any(isinstance(value, Tensor) for value in content.values())
    return ".".join(path) or "its names", content if has_any else {}


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    """Whether ``value`` is a state dict, or a mapping that wraps one."""
    if not isinstance(value, Mapping) or depth >= _DEEPEST:
        return False
    return any(isinstance(inner, Tensor) for inner in value.values()) or any(
        _holds_tensors(value.get(key), depth + 1) for key in WRAPPERS
    )


def _find_averages(
    content: Mapping[Any, Any], above: str = "", *, is_inside: bool = False, depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """State dicts under keys that say they are averaged; an empty one for a list of tensors without names."""
    for key, value in content.items():
        where = f"{above}.{key}" if above else str(key)
        is_average = is_inside or _is_average(str(key))
        if depth >= _DEEPEST:
            return
        if isinstance(value, list | tuple):
            if is_average and value and all(isinstance(inner, Tensor) for inner in value):
                yield where, {}
        elif isinstance(value, Mapping) and (is_average or key in WRAPPERS or where.startswith("callbacks")):
            if is_average and any(isinstance(inner, Tensor) and inner.ndim for inner in value.values()):
                entries, averaged, _ = _split(value)
                yield where, entries or next(iter(averaged.values()))
            else:
                yield from _find_averages(value, where, is_inside=is_average, depth=depth + 1)


def _is_average(name: str) -> bool:
    words = re.split(r"[_\-\s]+", name.lower())
    return any(word in AVERAGES for word in words) and all(word in AVERAGES | _OTHER_WORDS for word in words)


def _live_beside_averages(content: Mapping[Any, Any], averaged: Iterable[str]) -> str:
    """Where the live weights are in a file whose trainer exchanges them with the averaged ones when it saves; else "".

    mmengine, mmcv and Lightning do: what such a file calls averaged are the live ones.
    """
    meta = content.get("meta")
    versions = {"mmengine_version", "mmcv_version", "mmdet_version", "CLASSES"}
    if "message_hub" in content or (isinstance(meta, Mapping) and versions & meta.keys()):
        return list_names(averaged)
    return "current_model_state" if "current_model_state" in content else ""


def _split(
    found: Mapping[Any, Any],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]], list[str]]:
    """Live entries without what wraps their names, averaged ones by the name of what wraps them, and what is left."""
    groups: dict[tuple[str, ...], dict[str, Tensor]] = {}
    for key, value in found.items():
        if isinstance(value, Tensor):
            parts = [part for part in str(key).split(".") if part not in INVISIBLE]
            wrappers: list[str] = []
            while len(parts) > 1 and (parts[0] in PREFIXES or _is_average(parts[0])):
                wrappers.append(parts.pop(0))
            groups.setdefault(tuple(wrappers), {})[".".join(parts)] = value
    averaged = {
        f"{'.'.join(wrappers)}.": groups.pop(wrappers)
        for wrappers in list(groups)
        if any(_is_average(part) for part in wrappers)
    }
    live, notes = _join(groups)
    # mmcv's buffers: ema_backbone_conv1_weight beside backbone.conv1.weight
    buffers = {key.replace(".", "_"): key for key in live}
    beside = {key: name for key in live if (name := buffers.get(key.removeprefix("ema_"))) and name != key}
    if beside and len(beside) > len(live) // 4:
        averaged["ema_"] = {name: live.pop(key) for key, name in beside.items()}
    return live, averaged, notes


def _join(groups: Mapping[tuple[str, ...], dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[str]]:
    """The largest group without its wrappers, if it holds more than half of all; else all names as they are."""
    if not groups:
        return {}, []
    total = sum(map(len, groups.values()))
    wrappers, largest = max(groups.items(), key=lambda group: len(group[1]))
    if wrappers and 2 * len(largest) > total:
        left = [".".join((*w, key)) for w, entries in groups.items() if w != wrappers for key in entries]
        note = f"{len(left)} entries outside {'.'.join(wrappers)} are left out: {list_names(left)}"
        return largest, [note] if left else []
    return {".".join((*w, key)): value for w, entries in groups.items() for key, value in entries.items()}, []


def _match(averaged: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``averaged`` under the names of ``live``, as far as both have the same shape; some drop the dots of a name."""
    names = {**{key.replace(".", ""): key for key in live}, **{key.replace(".", "_"): key for key in live}}
    names |= {key: key for key in live}
    return {
        ours: value for key, value in averaged.items() if (ours := names.get(key)) and value.shape == live[ours].shape
    }


def without_common_prefix(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``entries`` without the first part of their names, if all have the same and something is left; else as it is."""
    firsts = {key.partition(".")[0] for key in entries}
    if len(firsts) != 1 or not all("." in key for key in entries):
        return dict(entries)
    return {key.partition(".")[2]: value for key, value in entries.items()}
