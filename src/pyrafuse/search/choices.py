"""What may be chosen: the operators, forms and sizes that drawn graphs are made of."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast

from pyrafuse.base.errors import PyrafuseError, check_count, unknown_name
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import TAKES_TWO, Graph
from pyrafuse.necks.merging import ALIGNING, DOWN, FUSIONS, UP

Answer = str | int
"""What a question is answered with; JSON holds it as it is."""

EACH = "each"
"""The answer to a question of the whole graph that leaves it to every merge."""
AS_INPUTS = "as_inputs"
"""The answer to ``channels`` that gives each level those of the map that comes in there."""
NO_CONV = "none"
"""The name of no convolution."""


Chooser = Callable[[str, Sequence[Answer]], int]
"""Answers one question of a drawing: its name, such as ``stack`` or, of the third merge, ``3.fusion``, and the answers
that are legal after those so far, at least one -> the place of the chosen one.
"""


def _default_convs() -> dict[str, Conv | None]:
    return {
        NO_CONV: None,
        "plain_1x1": Conv(1),
        "plain_3x3": Conv(3),
        "plain_3x3_relu": Conv(3, activation="relu"),
        "norm_1x1": Conv(1, norm="batch_norm"),
        "relu_3x3_norm": Conv(3, before="relu", norm="batch_norm", bias=True),
        "silu_separable_norm": Conv(3, separable=True, before="silu", norm="batch_norm", eps=1e-3, momentum=0.01),
        "norm_leaky_1x1": Conv(1, norm="batch_norm", activation="leaky_relu"),
        "norm_leaky_3x3": Conv(3, norm="batch_norm", activation="leaky_relu"),
    }


def _default_projects() -> dict[str, Conv]:
    return {
        "plain": Conv(1),
        "norm": Conv(1, norm="batch_norm", eps=1e-3, momentum=0.01),
        "norm_leaky": Conv(1, norm="batch_norm", activation="leaky_relu"),
    }


@dataclass(frozen=True)
class Space:
    """Everything that a drawn graph may hold; each field lists the choices.

    The defaults hold the necks written by hand over up to four levels, from P2 or P3 on, and all but ASFF over five.

    Attributes:
        fusions: Keys of `FUSIONS`; of one input there is only ``sum``.
        ups: Keys of `UP`.
        downs: Keys of `DOWN`.
        convs: Convolutions after a fusion by a name of your own; None, if it is there, stands for no convolution and
            must be called ``none``.
        projects: 1x1 convolutions of inputs whose channels differ, by a name of your own.
        widths: Where a concatenation or a single input is convolved anyway: ``own`` keeps the channels of the inputs,
            ``common`` brings them to the level's channels first.
        weight_channels: Channels that ``spatial_softmax`` squeezes each input to.
        channels: Channels of every merge; ``as_inputs`` gives each level those of the map that comes in there.
        stacks: How often the merges run.
        outputs: Sets of levels that go out.
        reads: Sets of levels whose maps of the backbone are read; of each set those that come in.
        sizes: Sides of the network's input in pixels.
        max_merges: Largest number of merges; a stem, which stacked merges have, is not counted.
        max_inputs: Largest number of inputs of a merge, 2 or more.

    Raises:
        PyrafuseError: If a list is empty or holds what is not allowed there.
        UnknownNameError: If an operator is not registered.
    """

    fusions: tuple[str, ...] = ("sum", "concat", "fast_normalized", "softmax", "spatial_softmax", "global_attention")
    ups: tuple[str, ...] = ("nearest", "bilinear")
    downs: tuple[str, ...] = (
        "max_pool",
        "max_pool_floor",
        "max_pool_to_size",
        "bilinear",
        "subsample",
        "conv",
        "max_pool_conv",
    )
    convs: Mapping[str, Conv | None] = field(default_factory=_default_convs)
    projects: Mapping[str, Conv] = field(default_factory=_default_projects)
    widths: tuple[str, ...] = ("own", "common")
    weight_channels: tuple[int, ...] = (16,)
    channels: tuple[int | str, ...] = (48, 64, 96, 128)
    stacks: tuple[int, ...] = (1, 2, 3)
    outputs: tuple[tuple[int, ...], ...] = ((3, 4, 5), (3, 4, 5, 6), (3, 4, 5, 6, 7), (2, 3, 4, 5))
    reads: tuple[tuple[int, ...], ...] = ((2, 3, 4, 5), (3, 4, 5))
    sizes: tuple[int, ...] = (256, 320, 416, 512)
    max_merges: int = 18
    max_inputs: int = 4

    def __post_init__(self) -> None:
        for one in fields(self):
            if not one.name.startswith("max_"):
                object.__setattr__(self, one.name, _read_choices(one.name, getattr(self, one.name)))
        check_count("max_merges of the space", self.max_merges, 1)
        check_count("max_inputs of the space", self.max_inputs, 2)
        for kind, names, known in (
            ("fusion", self.fusions, FUSIONS),
            ("up", self.ups, UP),
            ("down", self.downs, DOWN),
            ("width", self.widths, ("own", "common")),
        ):
            for name in names:
                if name not in known:
                    raise unknown_name(f"{kind} of the space", str(name), known)
        for what in ("sizes", "stacks", "weight_channels", "channels"):
            for number in getattr(self, what):
                if not (what == "channels" and number == AS_INPUTS):
                    check_count(f"one of the {what} of the space", cast("int", number), 1)
        for what in ("outputs", "reads"):
            for levels in getattr(self, what):
                _check_levels(what, levels)
        self._check_forms()

    def _check_forms(self) -> None:
        for name, form in self.convs.items():
            if not isinstance(form, Conv | None) or (form is None) != (name == NO_CONV):
                raise PyrafuseError(
                    f"convs of the space: {name!r} is {form!r}; give a Conv, or {NO_CONV!r}: None for no convolution"
                )
        for name, form in self.projects.items():
            if not isinstance(form, Conv):
                raise PyrafuseError(f"projects of the space: {name!r} is {form!r}; give a Conv")
        if EACH in (*self.fusions, *self.ups, *self.downs, *self.convs, *self.projects):
            raise PyrafuseError(f"{EACH!r} cannot be a name in a space: it leaves a choice to each merge; rename it")
        if not self.real_convs and self.fusions == ("concat",):
            raise PyrafuseError("the space's only fusion is concat, and it has no convolution to follow it: add one")
        if all(name in ALIGNING for name in self.ups):
            raise PyrafuseError(
                f"the space's only ways up are {', '.join(self.ups)}, which need a map of the merge's own level: add "
                "another, such as nearest"
            )
        normed = any(
            form is not None and form.norm == "group_norm" for form in (*self.convs.values(), *self.projects.values())
        )
        if normed and (wrong := [c for c in self.channels if isinstance(c, int) and c % 32]):
            raise PyrafuseError(f"group_norm needs multiples of 32 channels, and the space has {wrong[0]}: strike it")

    @property
    def real_convs(self) -> tuple[str, ...]:
        """Names of the convolutions, without that of none."""
        return tuple(name for name in self.convs if name != NO_CONV)

    def fusions_of(self, num_inputs: int) -> tuple[str, ...]:
        """Fusions that take so many inputs, two or more; a concatenation only where a convolution can follow."""
        return tuple(
            name
            for name in self.fusions
            if (num_inputs == 2 or name not in TAKES_TWO) and (self.real_convs or name != "concat")
        )

    def to_plain(self) -> dict[str, Any]:
        """All fields as JSON holds them."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def fingerprint(self) -> str:
        """16 hexadecimal digits that another space does not have."""
        text = json.dumps(self.to_plain(), sort_keys=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Candidate:
    """One drawing.

    Attributes:
        graph: The neck.
        size: Side of the network's input in pixels.
        answers: The choices that it was drawn by, by question; of the questions that had more than one legal answer.
    """

    graph: Graph
    size: int
    answers: Mapping[str, Answer]


def _read_choices(name: str, value: Any) -> Any:
    """A field of choices, with its lists as tuples."""
    if not isinstance(value, list | tuple | Mapping):
        raise PyrafuseError(f"{name} of the space is a list of choices, got {value!r}")
    if not value:
        raise PyrafuseError(f"{name} of the space is empty: give at least one choice")
    if isinstance(value, Mapping):
        return value
    choices = tuple(tuple(one) if isinstance(one, list) else one for one in value)
    if twice := [one for one in choices if choices.count(one) > 1]:
        raise PyrafuseError(f"{name} of the space holds {twice[0]!r} twice: strike one")
    return choices


def _check_levels(what: str, levels: Any) -> None:
    if not isinstance(levels, tuple) or not levels:
        raise PyrafuseError(f"{what} of the space: a set of levels is a list such as (3, 4, 5), got {levels!r}")
    for level in levels:
        check_count(f"a level among the {what} of the space", level)
    if list(levels) != sorted(set(levels)):
        raise PyrafuseError(f"{what} of the space: levels go from the finest to the coarsest, got {levels}")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
