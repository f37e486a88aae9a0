"""A pyramid as a graph: a short list of merges, each of which makes one map of others.

levels are numbered as in the papers: P3 has 8 pixels a cell, P4 16; what comes in is called C3, C4, ...
graph + what comes in -> every complaint there is -> plan: channels, strides and sources of every merge, in order
"""

import keyword
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from pyrafuse.base.errors import PyrafuseError, unknown_name
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.field_types import check_fields
from pyrafuse.necks.merging import ALIGNING, DOWN, FUSIONS, UP

TAKES_TWO = ("global_attention", "inject")

MOST_MERGES = 10_000
"""Largest number of merges, each counted as often as it runs."""


@dataclass(frozen=True)
class Merge:
    """One node: its inputs are brought to its level, fused, and convolved.

    Attributes:
        name: Unique, and a Python name: it is part of its parameters' names.
        level: Number of its level: an existing one, or the next one past the coarsest or the finest.
        inputs: Names of what it reads: maps of the backbone (``C3``), or merges before it.
        fusion: A key of `FUSIONS`; of one input, ``sum`` is the input itself.
        up: A key of `UP`: the way from coarser levels.
        down: A key of `DOWN`: the way from finer levels.
        project: The 1x1 convolution for inputs whose channels differ from ``width``; its norm and activation are those
            of convolutions on the way down, too.
        conv: The convolution after the fusion, if any.
        channels: Output channels; by default those of the graph.
        width: Channels during the fusion; by default ``channels``, and where a concatenation or a single input is
            convolved anyway, those of the inputs themselves.
        weight_channels: Number of channels that ``spatial_softmax`` squeezes each input to.

    Raises:
        PyrafuseError: If a value is of a wrong type.
    """

    name: str
    level: int
    inputs: tuple[str, ...]
    fusion: str = "sum"
    up: str = "nearest"
    down: str = "max_pool"
    project: Conv = field(default_factory=lambda: Conv(1))
    conv: Conv | None = None
    channels: int | None = None
    width: int | None = None
    weight_channels: int = 16

    def __post_init__(self) -> None:
        check_fields(self, f"merge {self.name}")


@dataclass(frozen=True)
class Graph:
    """Merges in the order in which they run.

    Attributes:
        merges: Each reads what comes in, or what stands before it.
        outputs: Names of the maps that go out, one a level, finest first.
        channels: Output channels of each merge that sets none itself.
        stem: Merges that run once, before the others.
        stack: How often ``merges`` run; from the second time on they read, in place of what lies outside of them, the
            output of the time before at the same level.
        ignored: Maps of the backbone that no merge may read.

    Raises:
        PyrafuseError: If a value is of a wrong type.
    """

    merges: tuple[Merge, ...]
    outputs: tuple[str, ...]
    channels: int = 256
    stem: tuple[Merge, ...] = ()
    stack: int = 1
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "the graph")


@dataclass(frozen=True)
class Step:
    """One merge as it runs.

    Attributes:
        merge: With its name of this time, and the inputs that it reads this time.
        sources: Places of its inputs among all maps: first what comes in, then one a step.
        levels: Number of the level of each source.
        stride: Pixels a cell of what it makes.
        before: Channels of each source.
        widths: Channels of each source when it is fused.
        fused: Channels of what is fused.
        channels: Output channels.
    """

    merge: Merge
    sources: tuple[int, ...]
    levels: tuple[int, ...]
    stride: int
    before: tuple[int, ...]
    widths: tuple[int, ...]
    fused: int
    channels: int


@dataclass(frozen=True)
class Plan:
    """A graph that fits what comes in.

    Attributes:
        levels: Number of the level of each map that comes in.
        steps: In order.
        outputs: Places of what goes out.
        features: Its channels and strides.
    """

    levels: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    features: PyramidSpec


def number_levels(strides: Sequence[int]) -> tuple[int, ...]:
    """The papers' number of each level: log2 of its stride, rounded, and past the one before."""
    numbers: list[int] = []
    for stride in strides:
        number = round(math.log2(stride))
        numbers.append(max(number, numbers[-1] + 1) if numbers else number)
    return tuple(numbers)


def plan_graph(graph: Graph, inputs: PyramidSpec) -> Plan:
    """Check ``graph`` against what comes in, and say what each merge needs.

    Raises:
        PyrafuseError: Naming the merge: a name that is taken or unknown, an input that comes later, is read twice (in
            any run of a stack) or never, a level that is out of reach, channels that do not fit, outputs that are no
            pyramid.
        UnknownNameError: If there is no such fusion or way from level to level.
    """
    numbers = number_levels(inputs.strides)
    arriving = {f"C{number}": number for number in numbers}
    _check_names(graph, arriving)
    _check_operators(graph)
    levels = _check_levels(graph, arriving)
    _check_use(graph, arriving, levels)

    merges, outputs = unroll(graph, arriving)
    if graph.stack > 1:
        _check_runs(graph, merges)
    places = {name: place for place, name in enumerate(arriving)}
    level_at, channels_at = list(numbers), list(inputs.channels)
    steps: list[Step] = []
    for merge in merges:
        sources = tuple(places[name] for name in merge.inputs)
        (stride,) = _strides(inputs.strides, numbers, {merge.level})
        step = _fit(
            merge, graph.channels, stride, sources, [level_at[s] for s in sources], [channels_at[s] for s in sources]
        )
        places[merge.name] = len(level_at)
        level_at.append(merge.level)
        channels_at.append(step.channels)
        steps.append(step)
    leaving = tuple(places[name] for name in outputs)
    strides = _strides(inputs.strides, numbers, {level_at[place] for place in leaving})
    features = PyramidSpec(tuple(channels_at[place] for place in leaving), strides)
    return Plan(levels=numbers, steps=tuple(steps), outputs=leaving, features=features)


def unroll(graph: Graph, arriving: Mapping[str, int]) -> tuple[tuple[Merge, ...], tuple[str, ...]]:
    """All merges of a stacked graph, numbered by their time from 1 on (``P4_2``), and the names of its outputs.

    Args:
        graph: Without faults.
        arriving: Level of each map that comes in, by name.
    """
    if graph.stack == 1:
        return (*graph.stem, *graph.merges), graph.outputs
    level_of = {**arriving, **{merge.name: merge.level for merge in (*graph.stem, *graph.merges)}}
    inner = {merge.name for merge in graph.merges}
    last: dict[int, str] = {}

    def now(name: str, time: int) -> str:
        return f"{name}_{time}" if name in inner else last.get(level_of[name], name)

    merges = list(graph.stem)
    outputs = graph.outputs
    for time in range(1, graph.stack + 1):
        merges += [
            replace(merge, name=now(merge.name, time), inputs=tuple(now(name, time) for name in merge.inputs))
            for merge in graph.merges
        ]
        outputs = tuple(now(name, time) for name in graph.outputs)
        last = dict(zip((level_of[name] for name in graph.outputs), outputs, strict=True))
    return tuple(merges), outputs


def _check_runs(graph: Graph, merges: Sequence[Merge]) -> None:
    """Refuse what only the runs of a stack show: a run's name that the stem has, maps that become one.

    Args:
        graph: Without faults.
        merges: What `unroll` makes of it.
    """
    taken = {merge.name for merge in graph.stem}
    for merge, run in zip(graph.merges * graph.stack, merges[len(graph.stem) :], strict=True):
        if run.name in taken:
            raise PyrafuseError(
                f"there are two of {run.name}: it is a merge already, and a run of merge {merge.name} is called so; "
                f"call {run.name} otherwise"
            )
        taken.add(run.name)
        for name in run.inputs:
            both = [own for own, read in zip(merge.inputs, run.inputs, strict=True) if read == name]
            if len(both) > 1:
                raise PyrafuseError(
                    f"merge {merge.name} reads {name} twice as {run.name}: from the second run on {' and '.join(both)} "
                    f"are both the output of the run before at that level; read one of them"
                )


def _check_names(graph: Graph, arriving: Mapping[str, int]) -> None:
    if not graph.merges:
        raise PyrafuseError("the graph has no merges: a list of at least one is needed")
    if graph.stack < 1:
        raise PyrafuseError(f"the graph's merges must run at least once, got stack={graph.stack}")
    if graph.stack * len(graph.merges) > MOST_MERGES:
        raise PyrafuseError(
            f"{len(graph.merges)} merges that run {graph.stack:,} times are more than the {MOST_MERGES:,} of a graph; "
            "lower stack"
        )
    if graph.channels < 1:
        raise PyrafuseError(f"the graph's channels must be positive, got {graph.channels}")
    known = list(arriving)
    attributes = nn.ModuleDict()  # where merges live: what it has already cannot be their name
    everything = [merge.name for merge in (*graph.stem, *graph.merges)]
    for merge in (*graph.stem, *graph.merges):
        if not merge.name.isidentifier() or keyword.iskeyword(merge.name) or hasattr(attributes, merge.name):
            raise PyrafuseError(f"{merge.name!r} cannot be a merge's name: take letters and digits, such as P4")
        if merge.name in known:
            what = "comes in" if merge.name in arriving else "is a merge already"
            raise PyrafuseError(f"there are two of {merge.name}: it {what}; call the later merge otherwise")
        if not merge.inputs:
            raise PyrafuseError(f"merge {merge.name} has no inputs: name one at least")
        for name in merge.inputs:
            if name == merge.name:
                raise PyrafuseError(f"merge {merge.name} reads itself")
            if name not in known and name in everything:
                raise PyrafuseError(f"merge {merge.name} reads {name}, which comes later: merges run in their order")
            if name not in known:
                raise unknown_name(f"input of merge {merge.name}:", name, known)
            if merge.inputs.count(name) > 1:
                raise PyrafuseError(f"merge {merge.name} reads {name} twice")
        known.append(merge.name)
    if not graph.outputs:
        raise PyrafuseError("the graph has no outputs: name one merge a level, finest first")
    for name in graph.outputs:
        if name not in known:
            raise unknown_name("output of the graph:", name, known)


def _check_operators(graph: Graph) -> None:
    for merge in (*graph.stem, *graph.merges):
        for kind, name, choices in (
            ("fusion", merge.fusion, FUSIONS),
            ("up", merge.up, UP),
            ("down", merge.down, DOWN),
        ):
            if name not in choices:
                raise unknown_name(f"{kind} of merge {merge.name}:", name, choices)
        if merge.fusion in TAKES_TWO and len(merge.inputs) != 2:
            raise PyrafuseError(
                f"merge {merge.name}: {merge.fusion} takes 2 inputs, got {len(merge.inputs)}: {', '.join(merge.inputs)}"
            )
        if merge.project.block != "conv":
            raise PyrafuseError(
                f"merge {merge.name}: project is a convolution alone, got the block {merge.project.block}: "
                "give the block to `conv`"
            )
        for what in ("channels", "width", "weight_channels"):
            number = getattr(merge, what)
            if number is not None and number < 1:
                raise PyrafuseError(f"merge {merge.name}: {what} must be positive, got {number}")


def _check_levels(graph: Graph, arriving: Mapping[str, int]) -> dict[str, int]:
    """Level of every map by its name."""
    levels = dict(arriving)
    for merge in (*graph.stem, *graph.merges):
        known = set(levels.values())
        if merge.level not in known and merge.level not in (max(known) + 1, min(known) - 1):
            raise PyrafuseError(
                f"merge {merge.name}: there is no level {merge.level}; so far there are "
                f"{', '.join(map(str, sorted(known)))}, and a merge may add {min(known) - 1} or {max(known) + 1}"
            )
        levels[merge.name] = merge.level
        first, coarsest = levels[merge.inputs[0]], max(levels[name] for name in merge.inputs)
        if merge.up in ALIGNING and coarsest > merge.level != first:
            raise PyrafuseError(
                f"merge {merge.name}: {merge.up} aligns to the first input, and {merge.inputs[0]} is of level {first}: "
                f"name an input of level {merge.level} first"
            )
    leaving = [levels[name] for name in graph.outputs]
    for earlier, later in zip(graph.outputs, graph.outputs[1:], strict=False):
        if levels[earlier] >= levels[later]:
            raise PyrafuseError(
                f"outputs go one a level, finest first, but {later} (level {levels[later]}) follows {earlier} "
                f"(level {levels[earlier]}); the levels are {', '.join(map(str, leaving))}"
            )
    return levels


def _check_use(graph: Graph, arriving: Mapping[str, int], levels: Mapping[str, int]) -> None:
    read = {name for merge in (*graph.stem, *graph.merges) for name in merge.inputs} | set(graph.outputs)
    for name in graph.ignored:
        if name not in arriving:
            raise unknown_name("ignored map:", name, arriving)
        if name in read:
            raise PyrafuseError(f"{name} is ignored, yet it is read: strike it from `ignored`")
    for name in levels:
        if name not in read and name not in graph.ignored:
            remedy = "read it, or list it in `ignored`" if name in arriving else "read it, put it out, or strike it"
            raise PyrafuseError(f"nothing reads {name}: {remedy}")


def _fit(
    merge: Merge, default: int, stride: int, sources: tuple[int, ...], levels: list[int], before: list[int]
) -> Step:
    is_concat = merge.fusion == "concat" and len(sources) > 1
    is_own = (len(sources) == 1 and merge.conv is not None) or is_concat
    width = merge.width or (None if is_own else merge.channels or default)
    widths = tuple(width or channels for channels in before)
    fused = sum(widths) if is_concat else widths[0]
    if merge.conv is not None:
        channels = merge.channels or default
    else:
        channels = fused
        if merge.channels not in (None, fused):
            raise PyrafuseError(
                f"merge {merge.name} gives {fused} channels and no convolution makes {merge.channels} of them: "
                "give it a `conv`, or leave out `channels`"
            )
    return Step(merge, sources, tuple(levels), stride, tuple(before), widths, fused, channels)


def _strides(given: Sequence[int], numbers: Sequence[int], levels: set[int]) -> tuple[int, ...]:
    """Strides of ``levels``: the given ones, and doubled or halved past them."""
    known = dict(zip(numbers, given, strict=True))
    first, last = numbers[0], numbers[-1]

    def stride(level: int) -> int:
        if level > last:
            return known[last] * 2 ** (level - last)
        if level < first:
            return max(1, known[first] // 2 ** (first - level))
        return known[level]

    return tuple(stride(level) for level in sorted(levels))
