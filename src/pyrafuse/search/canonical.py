"""One fingerprint for all graphs that compute the same.

graph -> plan -> a net of values, in which what has no parameters is there once -> names of its own for all values ->
their hash. Sums of sums are one sum, a sum of one is that one, a stack is what it unrolls to, and what no output reads
is left away. Parts with parameters stay apart, however alike.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
        PyrafuseError: On the same faults as `plan_graph`.
    """
    net = _read(plan_graph(graph, inputs), inputs)
    return _hash(*_name_all(net))


SUM, CONCAT = "sum", "concat"


@dataclass(frozen=True)
class _Value:
    """One map of the net.

    Attributes:
        label: What is done.
        sources: Places of what it is done to.
        roles: What each of them is: its rank where the order counts, how often it is added in a sum, else 0.
        is_own: Whether it has parameters of its own.
    """

    label: str
    sources: tuple[int, ...] = ()
    roles: tuple[int, ...] = ()
    is_own: bool = False


@dataclass
class _Net:
    """Values, each behind its sources, and places of what goes out."""

    values: list[_Value] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    _places: dict[_Value, int] = field(default_factory=dict)

    def add(self, label: str, sources: Sequence[int] = (), *, is_ordered: bool = True, is_own: bool = False) -> int:
        """The place of a value: that of an equal one, unless it has parameters."""
        if is_ordered:
            value = _Value(label, tuple(sources), tuple(range(len(sources))), is_own)
        else:
            value = _Value(label, tuple(sorted(sources)), (0,) * len(sources), is_own)
        return self._add(value)

    def add_sum(self, terms: Sequence[int]) -> int:
        """The sum of ``terms``, of which those that are sums are taken apart."""
        counts: Counter[int] = Counter()
        for term in terms:
            value = self.values[term]
            counts.update(dict(zip(value.sources, value.roles, strict=True)) if value.label == SUM else (term,))
        ((first, often), *others) = sorted(counts.items())
        if often == 1 and not others:
            return first
        sources, roles = zip((first, often), *others, strict=True)
        return self._add(_Value(SUM, sources, roles))

    def parts_of(self, terms: Sequence[int]) -> tuple[int, ...]:
        """``terms``, with those of each concatenation in its place."""
        values = [self.values[term] for term in terms]
        return tuple(
            part
            for term, value in zip(terms, values, strict=True)
            for part in (value.sources if value.label == CONCAT else (term,))
        )

    def _add(self, value: _Value) -> int:
        if value in self._places:
            return self._places[value]
        self.values.append(value)
        if not value.is_own:
            self._places[value] = len(self.values) - 1
        return len(self.values) - 1


def _read(plan: Plan, inputs: PyramidSpec) -> _Net:
    net = _Net()
    for level, channels, stride in zip(plan.levels, inputs.channels, inputs.strides, strict=True):
        net.add(f"C{level} {channels} {stride}")
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
        source = net.add(label, (source,), is_own=True)
    if halvings == 0:
        return source
    if halvings < 0:
        guide = arrived[:1] if merge.up in ALIGNING else ()
        label = f"up {merge.up} {-halvings} to {size} {after}"
        return net.add(label, (source, *guide), is_own=merge.up not in FREE_UPS)
    is_free = merge.down in FREE_DOWNS
    if is_free:
        form = ""
    elif merge.down == "max_pool_conv":
        form = f"{merge.project.activation} {before}>{after}"
    elif merge.down in CONVOLVING:  # their kernels are their own
        form = _describe(replace(merge.project, kernel_size=3), before, after)
    else:
        form = _describe(merge.project, before, after)
    return net.add(f"down {merge.down} {halvings} to {size} {form}", (source,), is_own=not is_free)


def _add_fusion(net: _Net, step: Step, arrived: Sequence[int]) -> int:
    merge, fusion = step.merge, step.merge.fusion
    if fusion == "sum" or (fusion == "concat" and len(arrived) == 1):
        return net.add_sum(arrived)
    if fusion == "concat":
        return net.add(CONCAT, net.parts_of(arrived))
    label = f"{fusion} {step.widths[0]}"
    if fusion not in PLACELESS_FUSIONS:
        label += f" {merge.weight_channels} {merge.project.activation}"
    return net.add(label, arrived, is_ordered=fusion not in SYMMETRIC_FUSIONS, is_own=fusion not in FREE_FUSIONS)


def _add_conv(net: _Net, step: Step, fused: int) -> int:
    """The convolution after the fusion; that of a concatenation learns its parts' order."""
    form = step.merge.conv
    if form is None:
        return fused
    label = _describe(form, step.fused, step.channels)
    return net.add(label, net.parts_of([fused]), is_ordered=form.block not in SYMMETRIC_BLOCKS, is_own=True)


def _describe(form: Conv, before: int, after: int) -> str:
    return f"{describe_conv(form)} {before}>{after}"


# names: two nets have the same ones exactly if they are the same


Readers = Mapping[int, Sequence[tuple[int, int]]]
"""What reads each value, and as what."""


def _name_all(net: _Net) -> list[str]:
    """A name of every value with parameters, and of what goes out, that does not depend on the order of merges."""
    reached = set(net.outputs)
    for place in range(len(net.values) - 1, -1, -1):
        if place in reached:
            reached.update(net.values[place].sources)
    places = sorted(reached)
    names = _name_by_sources(net, places, {})
    if not _find_tie(net, places, names):
        return _list_names(net, places, names)
    readers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place in places:
        value = net.values[place]
        for source, role in zip(value.sources, value.roles, strict=True):
            readers[source].append((place, role))
    return _break_ties(net, places, readers, {})


def _break_ties(net: _Net, places: Sequence[int], readers: Readers, marks: Mapping[int, str]) -> list[str]:
    """The least list of names, over all orders of values with parameters that nothing else tells apart.

    Args:
        net: Values.
        places: Those that an output reads.
        readers: Readers of each of them.
        marks: What is known to tell values apart, by place.
    """
    num_marks = 0
    while True:
        names = _name_by_readers(net, places, readers, _name_by_sources(net, places, marks))
        marks = {place: names[place] for place in places if net.values[place].is_own}
        if len({*marks.values()}) == num_marks:
            break
        num_marks = len({*marks.values()})
    tied = _find_tie(net, places, marks)
    if not tied:
        return _list_names(net, places, _name_by_sources(net, places, marks))
    if len({(net.values[place].sources, tuple(readers[place]), place in net.outputs) for place in tied}) == 1:
        tied = tied[:1]  # twins: one is as good as another
    return min(_break_ties(net, places, readers, {**marks, place: f"first {marks[place]}"}) for place in tied)


def _find_tie(net: _Net, places: Sequence[int], names: Mapping[int, str]) -> list[int]:
    """Values with parameters that have one name: the least that several have."""
    own = [place for place in places if net.values[place].is_own]
    counts = Counter(names[place] for place in own)
    shared = min((name for name, count in counts.items() if count > 1), default=None)
    return [place for place in own if names[place] == shared]


def _name_by_sources(net: _Net, places: Sequence[int], marks: Mapping[int, str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for place in places:
        value = net.values[place]
        sources = sorted(f"{names[source]}{role}" for source, role in zip(value.sources, value.roles, strict=True))
        names[place] = _hash(value.label, marks.get(place, ""), *sources)
    return names


def _name_by_readers(net: _Net, places: Sequence[int], readers: Readers, names: Mapping[int, str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for place in reversed(places):
        ends = [f"out {rank}" for rank, output in enumerate(net.outputs) if output == place]
        found[place] = _hash(names[place], *ends, *sorted(f"{found[reader]}{role}" for reader, role in readers[place]))
    return found


def _list_names(net: _Net, places: Sequence[int], names: Mapping[int, str]) -> list[str]:
    return [*sorted(names[place] for place in places if net.values[place].is_own), *(names[one] for one in net.outputs)]


def _hash(*texts: str) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
