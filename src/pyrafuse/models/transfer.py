"""From one detector's parameters to another's: equal names and shapes, and rows of classes by the classes' names.

state of a detector, its class names -> what fits is copied into another detector -> what was taken and what is new
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyrafuse.base.printable import list_names
from pyrafuse.core.class_rows import ClassRows

SHOWN_CLASSES = 10


@dataclass(frozen=True)
class ClassMatch:
    """Which class of one detector is which of another.

    Attributes:
        pairs: (class there, class here) of those that both have.
        renamed: Name here -> name there, where they differ in upper and lower case.
        fresh: Names of the classes that are only here.
        left_out: Number of the classes that are only there.
        is_by_order: Whether the classes there have no names and are as many: they are taken in their order.
    """

    pairs: tuple[tuple[int, int], ...]
    renamed: Mapping[str, str]
    fresh: tuple[str, ...]
    left_out: int
    is_by_order: bool = False


@dataclass(frozen=True)
class Transfer:
    """What became of a copy.

    Attributes:
        whole: Entries that were copied whole.
        partial: Entries of which the rows of some classes were copied.
        fresh: Entries of the detector that nothing was copied into.
        left_out: Entries of the state that were not used.
    """

    whole: tuple[str, ...]
    partial: tuple[str, ...]
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def num_taken(self) -> int:
        """Entries that were copied, whole or in part."""
        return len(self.whole) + len(self.partial)

    @property
    def num_entries(self) -> int:
        """Entries of the detector."""
        return self.num_taken + len(self.fresh)


def are_told(names: Sequence[str]) -> bool:
    """Whether ``names`` are names, and not the numbers that stand for them where a file tells none."""
    return bool(names) and tuple(names) != tuple(map(str, range(len(names))))


def match_classes(theirs: Sequence[str], ours: Sequence[str], *, num_theirs: int) -> ClassMatch:
    """Match classes by name: exactly, then without regard to upper and lower case, each one once.

    Args:
        theirs: Names there; empty, or numbers, where they are not known.
        ours: Names here.
        num_theirs: Number of classes there.
    """
    if not are_told(theirs) and num_theirs == len(ours):
        pairs = tuple((label, label) for label in range(num_theirs))
        return ClassMatch(pairs, {}, (), 0, is_by_order=tuple(theirs) != tuple(ours))
    exact = {name: label for label, name in reversed(list(enumerate(theirs)))}
    found = {label: exact[name] for label, name in enumerate(ours) if name in exact}
    used = set(found.values())
    folded = {name.casefold(): i for i, name in reversed(list(enumerate(theirs))) if i not in used}
    renamed = {}
    for label, name in enumerate(ours):
        if label not in found and (near := folded.pop(name.casefold(), None)) is not None:
            found[label] = near
            renamed[name] = theirs[near]
    fresh = tuple(name for label, name in enumerate(ours) if label not in found)
    pairs = tuple((there, here) for here, there in sorted(found.items()))
    return ClassMatch(pairs, renamed, fresh, num_theirs - len(pairs))


def find_class_rows(detector: nn.Module) -> dict[str, ClassRows]:
    """The layout of each parameter of ``detector`` that has rows of classes, by its key in the state."""
    return {
        f"{prefix}{layer}.{name}": rows
        for path, head in detector.named_modules()
        if (prefix := f"{path}." if path else "") is not None
        for layer, rows in getattr(head, "class_rows", {}).items()
        for name, _ in head.get_submodule(layer).named_parameters(recurse=False)
    }


@torch.no_grad()
def transfer(
    detector: nn.Module,
    state: Mapping[str, Tensor],
    classes: ClassMatch,
    *,
    num_theirs: int,
    num_ours: int,
    without: Collection[str] = (),
) -> Transfer:
    """Copy what fits of ``state`` into ``detector``.

    An entry fits that has the same key and shape. Of the layers that a head tells the `ClassRows` of, the rows of the
    classes that both have are copied, each to its own place; rows of other classes stay as they are.

    Args:
        detector: Changed in place.
        state: Parameters and statistics of a detector, of which ``detector`` may be another form.
        classes: Which of their classes is which of ours.
        num_theirs: Number of their classes.
        num_ours: Number of ours.
        without: Prefixes of keys that are not copied.
    """
    own, layouts = detector.state_dict(), find_class_rows(detector)
    state = _with_necks_as_in(own, state)
    whole, partial, fresh = [], [], []
    for key, ours in own.items():
        theirs = None if key.startswith(tuple(without)) else state.get(key)
        if theirs is None:
            fresh.append(key)
        elif rows := layouts.get(key):
            has_rows = bool(classes.pairs or rows.before or rows.after)
            is_copied = has_rows and rows.copy(theirs, ours, classes.pairs, num_theirs=num_theirs, num_ours=num_ours)
            (fresh if not is_copied else partial if classes.fresh else whole).append(key)
        elif theirs.shape == ours.shape:
            ours.copy_(theirs)
            whole.append(key)
        else:
            fresh.append(key)
    taken = {*whole, *partial}
    return Transfer(tuple(whole), tuple(partial), tuple(fresh), tuple(key for key in state if key not in taken))


def _with_necks_as_in(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` with the keys of its only neck, or of its first one, as ``own`` calls them: alone or first in a row."""
    alone, in_row = "neck.", "neck.necks.0."
    is_row, was_row = (any(key.startswith(in_row) for key in keys) for keys in (own, state))
    if is_row == was_row:
        return dict(state)
    before, after = (alone, in_row) if is_row else (in_row, alone)
    return {after + key.removeprefix(before) if key.startswith(before) else key: value for key, value in state.items()}


def describe_transfer(done: Transfer, classes: ClassMatch, layers: Collection[str], *, source: object) -> str:
    """What was taken and what is new, in a sentence or two.

    Args:
        done: What became of the copy.
        classes: Which of their classes is which of ours.
        layers: Keys of the parameters that have rows of classes.
        source: Where the parameters were read.
    """
    parts = [f"{done.num_taken} of {done.num_entries} entries taken from {source}"]
    if done.partial:
        parts[0] += f", {len(done.partial)} of them in part"
    fresh_layers = [key for key in done.fresh if key in layers]
    if fresh_layers and classes.pairs:
        parts.append(f"new: {len(fresh_layers)} entries of the class outputs, which have another shape there")
    if classes.fresh:
        count = len(classes.fresh)
        parts.append(
            f"new: the outputs for {count} {_classes(count)} ({list_names(classes.fresh, most=SHOWN_CLASSES)})"
        )
    others = Counter(key.partition(".")[0] for key in done.fresh if key not in layers)
    if others:
        parts.append("new: " + ", ".join(f"{count} entries of the {part}" for part, count in others.items()))
    if classes.is_by_order:
        parts.append(f"the file does not name its {len(classes.pairs)} classes: they are taken in their order")
    if classes.renamed:
        renamed = [f"{name} (there {other})" for name, other in classes.renamed.items()]
        as_there = list_names(renamed, most=SHOWN_CLASSES)
        parts.append(f"matched without regard to case: {as_there}")
    left_out = [f"{classes.left_out} {_classes(classes.left_out)}"] if classes.left_out else []
    left_out += [f"{len(done.left_out)} entries"] if done.left_out else []
    if left_out:
        parts.append(f"left out of the file: {' and '.join(left_out)}")
    return "; ".join(parts)


def _classes(count: int) -> str:
    return "class" if count == 1 else "classes"
