"""One fingerprint for all graphs that compute the same.

graph -> plan -> a net of values, in which what has no parameters is there once -> names of its own for all values ->
their hash. Sums of sums are one sum, a sum of one is that one, a stack is what it unrolls to, and what no output reads
is left away. Parts with parameters stay apart, however alike.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Plan, Step, plan_graph
from pyrafuse.necks.merging import ALIGNING, CONVOLVING
from pyrafuse.search.operators import (
    FREE_DOWNS,
    FREE_FUSIONS,
    FREE_UPS,
    PLACELESS_FUSIONS,
    SYMMETRIC_BLOCKS,
    SYMMETRIC_FUSIONS,
    describe_conv,
)


def fingerprint(graph: Graph, inputs: PyramidSpec) -> str:
    """16 hexadecimal digits that graphs share if they compute the same of ``inputs`` with the same parameters.

    Raises:
        PyrafuseError: As `plan_graph` does.
    """
    net = _read(plan_graph(graph, inputs), inputs)
    return _hash(*_name_all(net))[:16]


@dataclass(frozen=True)
class _Value:
    """One map of the net.

    Attributes:
        label: What is done.
        sources: Places of what it is done to.
        is_ordered: Whether their order counts.
        is_own: Whether it has parameters of its own.
    """

    label: str
    sources: tuple[int, ...] = ()
    is_ordered: bool = True
    is_own: bool = False


@dataclass
class _Net:
    """Values, each behind its sources, and places of what goes out."""

    values: list[_Value] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    _places: dict[_Value, int] = field(default_factory=dict)

    def add(self, value: _Value) -> int:
        """The place of ``value``: that of an equal one, unless it has parameters."""
        if value in self._places:
            return self._places[value]
        self.values.append(value)
        if not value.is_own:
            self._places[value] = len(self.values) - 1
        return len(self.values) - 1

    def add_sum(self, terms: Sequence[int]) -> int:
        flat: list[int] = []
        for term in terms:
            value = self.values[term]
            flat += value.sources if value.label == "sum" else (term,)
        return flat[0] if len(flat) == 1 else self.add(_Value("sum", tuple(sorted(flat)), is_ordered=False))

    def add_concat(self, terms: Sequence[int]) -> int:
        flat = self.parts_of(terms)
        return flat[0] if len(flat) == 1 else self.add(_Value("concat", flat))

    def parts_of(self, terms: Sequence[int]) -> tuple[int, ...]:
        """``terms``, with those of each concatenation in its place."""
        values = [self.values[term] for term in terms]
        return tuple(
            part
            for term, value in zip(terms, values, strict=True)
            for part in (value.sources if value.label == "concat" else (term,))
        )


def _read(plan: Plan, inputs: PyramidSpec) -> _Net:
    net = _Net()
    for level, channels, stride in zip(plan.levels, inputs.channels, inputs.strides, strict=True):
        net.add(_Value(f"C{level} {channels} {stride}"))
    sizes = {level: f"C{level}" for level in plan.levels}
    maps = list(range(len(plan.levels)))
    for step in plan.steps:
        level = step.merge.level
        if level not in sizes:  # a new level is as large as what arrives there first
            sizes[level] = f"{sizes[step.levels[0]]} {_size_rule(step)}"
        arrived: list[int] = []
        for rank, source in enumerate(step.sources):
            arrived.append(_add_edge(net, step, maps[source], rank, sizes[level], arrived))
        maps.append(_add_conv(net, step, _add_fusion(net, step, arrived)))
    net.outputs = tuple(maps[place] for place in plan.outputs)
    return net


def _size_rule(step: Step) -> str:
    """How the size of a new level follows from that of the first source's level."""
    halvings = step.merge.level - step.levels[0]
    down = step.merge.down
    is_known = down in FREE_DOWNS or down in CONVOLVING
    way = "up" if halvings < 0 else "floor" if down == "max_pool_floor" else "ceil" if is_known else down
    return f"{way}{abs(halvings)}"


def _add_edge(net: _Net, step: Step, source: int, rank: int, size: str, arrived: Sequence[int]) -> int:
    """What arrives of one source: its 1x1 convolution, then its way to the level."""
    merge, before, after = step.merge, step.before[rank], step.widths[rank]
    halvings = merge.level - step.levels[rank]
    brings_channels = halvings > 0 and merge.down in CONVOLVING
    if before != after and not brings_channels:
        label, before = _describe(merge.project, before, after), after
        source = net.add(_Value(label, (source,), is_own=True))
    if halvings == 0:
        return source
    if halvings < 0:
        guide = arrived[:1] if merge.up in ALIGNING else ()
        label = f"up {merge.up} {-halvings} to {size} {after}"
        return net.add(_Value(label, (source, *guide), is_own=merge.up not in FREE_UPS))
    is_free = merge.down in FREE_DOWNS
    if is_free:
        form = ""
    elif merge.down == "max_pool_conv":
        form = f"{merge.project.activation} {before}>{after}"
    elif merge.down == "conv":
        form = _describe(replace(merge.project, kernel_size=3), before, after)
    else:
        form = _describe(merge.project, before, after)
    return net.add(_Value(f"down {merge.down} {halvings} to {size} {form}", (source,), is_own=not is_free))


def _add_fusion(net: _Net, step: Step, arrived: Sequence[int]) -> int:
    merge, fusion = step.merge, step.merge.fusion
    if fusion == "sum" or (fusion == "concat" and len(arrived) == 1):
        return net.add_sum(arrived)
    if fusion == "concat":
        return net.add_concat(arrived)
    is_symmetric = fusion in SYMMETRIC_FUSIONS
    label = f"{fusion} {step.widths[0]}"
    if fusion not in PLACELESS_FUSIONS:
        label += f" {merge.weight_channels} {merge.project.activation}"
    sources = tuple(sorted(arrived)) if is_symmetric else tuple(arrived)
    return net.add(_Value(label, sources, is_ordered=not is_symmetric, is_own=fusion not in FREE_FUSIONS))


def _add_conv(net: _Net, step: Step, fused: int) -> int:
    """The convolution after the fusion; that of a concatenation learns its parts' order."""
    if step.merge.conv is None:
        return fused
    parts = net.parts_of([fused])
    label = _describe(step.merge.conv, step.fused, step.channels)
    is_symmetric = step.merge.conv.block in SYMMETRIC_BLOCKS
    return net.add(_Value(label, tuple(sorted(parts)) if is_symmetric else parts, not is_symmetric, is_own=True))


def _describe(form: Conv, before: int, after: int) -> str:
    return f"{describe_conv(form)} {before}>{after}"


# names: two nets have the same ones, in the same order, exactly if they are the same


def _name_all(net: _Net) -> list[str]:
    """Every value with parameters that an output reads, and the outputs, by names that do not depend on any order."""
    reached = set(net.outputs)
    for place in range(len(net.values) - 1, -1, -1):
        if place in reached:
            reached.update(net.values[place].sources)
    own = [place for place in sorted(reached) if net.values[place].is_own]
    names = _name_down(net, reached, {})
    tied = _find_tie(names, own)
    if not tied:
        return _list_names(net, own, names)
    readers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place in sorted(reached):
        for rank, source in enumerate(net.values[place].sources):
            readers[source].append((place, rank if net.values[place].is_ordered else 0))
    return _break_ties(net, own, reached, readers, {})


def _break_ties(
    net: _Net,
    own: Sequence[int],
    reached: set[int],
    readers: Mapping[int, Sequence[tuple[int, int]]],
    marks: dict[int, str],
) -> list[str]:
    """The least list of names, over all orders of values that nothing but an order tells apart."""
    while True:
        names = _name_up(net, reached, readers, _name_down(net, reached, marks))
        finer = {place: names[place] for place in own}
        if len(set(finer.values())) == len(set(marks.values())):
            break
        marks = finer
    tied = _find_tie(names, own)
    if not tied:
        return _list_names(net, own, _name_down(net, reached, marks))
    if _are_twins(net, tied, readers):
        tied = tied[:1]
    return min(
        _break_ties(net, own, reached, readers, {**marks, place: _hash(marks[place], "first")}) for place in tied
    )


def _find_tie(names: Mapping[int, str], own: Iterable[int]) -> list[int]:
    """Places of those with one name, the least that several have."""
    counts = Counter(names[place] for place in own)
    shared = [name for name, count in counts.items() if count > 1]
    return [place for place in own if names[place] == min(shared)] if shared else []


def _are_twins(net: _Net, places: Sequence[int], readers: Mapping[int, Sequence[tuple[int, int]]]) -> bool:
    """Whether they read the same and are read by the same: then any order of them is as good as another."""
    return len({(net.values[one].sources, tuple(readers[one]), one in net.outputs) for one in places}) == 1


def _name_down(net: _Net, reached: set[int], marks: Mapping[int, str]) -> dict[int, str]:
    """A name of each value by what it is made of."""
    names: dict[int, str] = {}
    for place in sorted(reached):
        value = net.values[place]
        sources = [names[source] for source in value.sources]
        names[place] = _hash(value.label, marks.get(place, ""), *(sources if value.is_ordered else sorted(sources)))
    return names


def _name_up(
    net: _Net, reached: set[int], readers: Mapping[int, Sequence[tuple[int, int]]], below: Mapping[int, str]
) -> dict[int, str]:
    """A name of each value by what it is made of and by what reads it."""
    names: dict[int, str] = {}
    for place in sorted(reached, reverse=True):
        above = sorted(f"{names[reader]} {rank}" for reader, rank in readers[place])
        ends = [str(rank) for rank, output in enumerate(net.outputs) if output == place]
        names[place] = _hash(below[place], *ends, "|", *above)
    return names


def _list_names(net: _Net, own: Sequence[int], names: Mapping[int, str]) -> list[str]:
    return [*sorted(names[place] for place in own), *(names[place] for place in net.outputs)]


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
