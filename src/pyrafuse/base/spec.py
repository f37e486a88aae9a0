"""The one description of a detector: what it is made of, what teaches it, and what becomes of its predictions.

named model, edits, YAML -> `DetectorSpec` -> built; checkpoint, recipe, exported file <- the same, every option told
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from pyrafuse.base.errors import PyrafuseError, check_count, nearest
from pyrafuse.base.parts import NAME, Part, edit, read_part, to_plain

MOST_CLASSES = 100_000
"""Largest number of classes, of a detector and of data: one wrong digit must not fill the memory."""

Presets = Mapping[str, Mapping[str, Any]]
"""Options that a part begins with where it is put in place of a model's own, by its name; a ``*`` stands for any."""


@dataclass(frozen=True)
class DetectorSpec:
    """A one-stage detector.

    Written by hand it is sparse: what a part leaves out is its default. That of a built detector is whole: no option
    of any part is left out, so that it means the same when a default changes.

    Attributes:
        backbone: Images -> pyramid.
        necks: Pyramid -> pyramid, in a row.
        head: Pyramid -> predictions.
        coder: Between boxes and the numbers that the head predicts of them; None where the head has its own.
        criterion: Predictions, targets -> losses; assigners, samplers and losses inside.
        decode: Predictions -> candidates.
        postprocess: Candidates -> detections.
        num_classes: Number of classes, K.
    """

    backbone: Part
    necks: tuple[Part, ...]
    head: Part
    coder: Part | None
    criterion: Part
    decode: Part
    postprocess: Part
    num_classes: int = 80

    def __post_init__(self) -> None:
        check_count("num_classes", self.num_classes, 1, MOST_CLASSES)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "num_classes" and not value and (field.name != "coder" or value is not None):
                raise PyrafuseError(f"a detector needs {field.name}, got {value!r}; choose from `pyrafuse models`")

    def with_parts(self, presets: Presets | None = None, **changes: Any) -> Self:
        """The same detector with other parts, or other options of its own.

        Args:
            presets: What parts begin with that are not its own yet.
            changes: For each field another part by its name, alone or in a mapping with options, or a mapping of
                options of the part that is there. ``neck`` is one neck or several in a row, ``necks`` a mapping of
                their options by the name of each.

        Raises:
            PyrafuseError: If there is no such field, or a change is none of these.
        """
        presets = presets or {}
        names = [field.name for field in fields(self)]
        values: dict[str, Any] = {}
        for name, change in changes.items():
            if name == "neck":
                values["necks"] = _replace_necks(self.necks, change, presets)
            elif name == "num_classes":
                values[name] = change
            elif name not in names:
                near = nearest(name.removesuffix("_options"), [*names, "neck"])
                hint = f" did you mean {near!r}?" if near else ""
                raise PyrafuseError(f"a detector has no {name!r};{hint} choose from {', '.join(sorted(names))}")
            elif name != "necks":
                before = getattr(self, name)
                change_one = _edit_row if isinstance(before, tuple) else edit
                values[name] = change_one(before, change, presets=presets)
        if "necks" in changes:  # of those that ``neck`` names, where it does
            values["necks"] = _edit_necks(values.get("necks", self.necks), changes["necks"])
        return replace(self, **values)

    def to_plain(self) -> dict[str, Any]:
        """Mappings, lists and values that JSON and YAML hold; `read_spec` reads them back to an equal description."""
        return {field.name: to_plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class TwoStageSpec(DetectorSpec):
    """A two-stage detector, or a cascade: RoI heads on the proposals of its head, a region proposal network.

    Attributes:
        proposals: Chooses the regions to detect in.
        learning_proposals: Chooses those that the stages sample from when they learn.
        stages: Cascade stages in their order: RoI head, coder, assigner, sampler, weight of its losses.
    """

    proposals: Part
    learning_proposals: Part
    stages: tuple[Part, ...]


def read_spec(values: Any) -> DetectorSpec:
    """The inverse of `DetectorSpec.to_plain`.

    Raises:
        PyrafuseError: If a part is missing or unknown, or a value is of a wrong kind.
    """
    if not isinstance(values, Mapping):
        raise PyrafuseError(f"a detector is described by a mapping of its parts, not by {values!r}")
    kind = TwoStageSpec if "stages" in values else DetectorSpec
    names = [field.name for field in fields(kind)]
    if strange := sorted(map(str, set(values) - set(names))):
        raise PyrafuseError(f"a detector has no {strange[0]!r}; choose from {', '.join(names)}")
    if missing := [name for name in names if name not in values and name != "num_classes"]:
        raise PyrafuseError(f"a detector needs {', '.join(missing)}; pyrafuse models NAME --spec shows a whole one")
    return kind(**{name: _read_field(name, value) for name, value in values.items()})


def _read_field(name: str, value: Any) -> Any:
    if name == "num_classes" or (name == "coder" and value is None):
        return value
    if name in ("necks", "stages"):
        if not isinstance(value, list | tuple) or not value:
            raise PyrafuseError(f"{name} is a list of parts, got {value!r}")
        return tuple(map(read_part, value))
    return read_part(value)


def _edit_row(before: tuple[Part, ...], change: Any, *, presets: Presets) -> tuple[Any, ...]:
    """A mapping of options changes all parts of the row; a list each of them, or replaces them."""
    if not isinstance(change, list | tuple):
        return tuple(edit(one, change, presets=presets) for one in before)
    if len(change) != len(before):
        return tuple(map(read_part, change))
    return tuple(edit(one, of_one, presets=presets) for one, of_one in zip(before, change, strict=True))


def _replace_necks(before: tuple[Part, ...], change: Any, presets: Presets) -> tuple[Part, ...]:
    if isinstance(change, Mapping) and NAME not in change:
        if len(before) > 1:
            raise PyrafuseError(
                f"the necks are {', '.join(neck.name for neck in before)}: options of each are given by its name, as "
                "necks={NAME: {...}}"
            )
        return _edit_necks(before, {neck.name: change for neck in before})
    row = [read_part(one) for one in (change if isinstance(change, list | tuple) else (change,))]
    if not row:
        raise PyrafuseError("a detector needs a neck; identity leaves the backbone's maps as they are")
    known = {neck.name: neck for neck in before}
    begun = [known.get(one.name, Part(one.name, presets.get(one.name, {}))) for one in row]
    return tuple(one.with_options(**given.options) for one, given in zip(begun, row, strict=True))


def _edit_necks(before: tuple[Part, ...], options: Any) -> tuple[Part, ...]:
    names = [neck.name for neck in before]
    if not isinstance(options, Mapping):
        raise PyrafuseError(f"necks is a mapping of options by the name of each neck, got {options!r}")
    if strangers := sorted(set(options) - set(names)):
        raise PyrafuseError(f"options are given for {', '.join(strangers)}, but the necks are {', '.join(names)}")
    if "graph" in options:
        raise PyrafuseError("a graph takes no options, it says all itself: change its text")
    changed = (edit(neck, options.get(neck.name, {})) for neck in before)
    return tuple(neck for neck in changed if isinstance(neck, Part))
