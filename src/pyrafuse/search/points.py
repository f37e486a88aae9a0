"""Necks written by hand as points of the space: where a search begins, and what it is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.asff_graph import asff_graph
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.graph import Graph, Merge, number_levels, plan_graph
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn


def concat_graph(inputs: PyramidSpec, *, activation: str = "leaky_relu") -> Graph:
    """The graph of `concat_fusion`: at every level all levels are concatenated and convolved, 1x1 and 3x3."""
    summed = asff_graph(inputs, fusion="concat", activation=activation)
    merges = []
    for end in summed.merges:
        name = f"F{end.level}"
        merges.append(replace(end, name=name, conv=Conv(1, norm="batch_norm", activation=activation)))
        merges.append(Merge(end.name, end.level, (name,), conv=end.conv, channels=end.channels))
    return replace(summed, merges=tuple(merges))


def balanced_graph(inputs: PyramidSpec) -> Graph:
    """The graph of `BFP` with the refinement ``conv``, over levels of the same channels.

    All levels are gathered at one, convolved, and given back to each. The mean begins as one and learns its weights.
    Windows of `BFP`'s pooling share cells where a side is no multiple; here they do not.
    """
    numbers = number_levels(inputs.strides)
    at = numbers[inputs.strides.index(16) if 16 in inputs.strides else len(inputs) // 2]
    names = tuple(f"C{n}" for n in numbers)
    down = "max_pool_to_size"
    gathered = Merge(f"G{at}", at, names, fusion="softmax", down=down, conv=Conv(3, activation="relu"))
    ends = tuple(Merge(f"P{n}", n, (f"C{n}", gathered.name), down=down) for n in numbers)
    return Graph((gathered, *ends), tuple(end.name for end in ends), channels=inputs.channels[0])


def chain_graphs(first: Graph, second: Graph, inputs: PyramidSpec) -> Graph:
    """One graph of two in a row: ``second`` reads what ``first`` puts out.

    Args:
        first: It runs on ``inputs``.
        second: Its maps ``C3``, ``C4``, ... are the outputs of ``first`` at these levels.
        inputs: Channels and strides of the backbone's maps.

    Raises:
        PyrafuseError: If one of them is stacked, or has faults.
    """
    if first.stack > 1 or second.stack > 1:
        raise PyrafuseError("a stacked graph cannot be chained with another: write its runs out, or set its stack to 1")
    features = plan_graph(first, inputs).features
    plan_graph(second, features)
    before = (*first.stem, *first.merges)
    taken = {merge.name for merge in before}
    known = {f"C{n}": name for n, name in zip(number_levels(features.strides), first.outputs, strict=True)}
    merges = list(before)
    for merge in (*second.stem, *second.merges):
        name = merge.name
        while name in taken:
            name += "x"
        taken.add(name)
        gives_own = merge.fusion == "concat" and merge.conv is None
        channels = merge.channels or (None if gives_own else second.channels)
        merges.append(replace(merge, name=name, inputs=tuple(known[one] for one in merge.inputs), channels=channels))
        known[merge.name] = name
    outputs = tuple(known[name] for name in second.outputs)
    return Graph(tuple(merges), outputs, first.channels, ignored=first.ignored)


def _behind_fpn(make: Callable[[PyramidSpec], Graph]) -> Callable[[PyramidSpec, int, int | None], Graph]:
    """A graph that reads the outputs of an FPN."""

    def create(inputs: PyramidSpec, channels: int, num_levels: int | None) -> Graph:
        first = fpn(inputs, out_channels=channels, num_levels=num_levels)
        return chain_graphs(first.graph, make(first.features), inputs)

    return create


POINTS: dict[str, Callable[[PyramidSpec, int, int | None], Graph]] = {
    "fpn": lambda inputs, channels, levels: fpn(inputs, out_channels=channels, num_levels=levels).graph,
    "pafpn": lambda inputs, channels, levels: pafpn(inputs, out_channels=channels, num_levels=levels).graph,
    "nas_fpn": lambda inputs, channels, _: nas_fpn(inputs, out_channels=channels, stack=3).graph,
    "bifpn": lambda inputs, channels, levels: bifpn(inputs, out_channels=channels, num_levels=levels).graph,
    "asff": _behind_fpn(asff_graph),
    "sum_fusion": _behind_fpn(lambda inputs: asff_graph(inputs, fusion="sum")),
    "concat_fusion": _behind_fpn(concat_graph),
    "bfp": _behind_fpn(balanced_graph),
}
"""Graphs of the necks written by hand, of (what the backbone gives, channels, number of levels or None).

The fusions that read every level stand behind an FPN, as they do in detectors.
"""


def create_point(name: str, inputs: PyramidSpec, channels: int, levels: Sequence[int]) -> Graph:
    """A neck of `POINTS` that gives out ``levels``.

    Maps finer than these are not read. A level finer than all maps is made of the finest one, enlarged; the neck reads
    it like one of the backbone.

    Args:
        name: A key of `POINTS`.
        inputs: Channels and strides of the backbone's maps.
        channels: Channels of every level.
        levels: Numbers without gaps, finest first.

    Raises:
        ValueError: If the neck cannot give out these levels.
    """
    numbers, finest = number_levels(inputs.strides), levels[0]
    read = [place for place, number in enumerate(numbers) if number >= finest]
    if not read:
        raise ValueError(f"nothing as coarse as P{finest} comes in: P{numbers[-1]} is the coarsest")
    made = range(finest, numbers[read[0]])
    factors = [2 ** (numbers[read[0]] - level) for level in made]
    first = inputs.strides[read[0]]
    if any(first % factor for factor in factors):
        raise ValueError(f"P{finest} would be finer than the pixels: the finest map has stride {first}")
    seen = PyramidSpec(
        (*(channels for _ in made), *(inputs.channels[place] for place in read)),
        (*(first // factor for factor in factors), *(inputs.strides[place] for place in read)),
    )
    graph = POINTS[name](seen, channels, len(levels))
    given = number_levels(plan_graph(graph, seen).features.strides)
    if given != tuple(levels):
        raise ValueError(f"it gives out {', '.join(f'P{level}' for level in given)}")
    stem = [Merge(f"C{level}", level, (f"C{level + 1}",)) for level in reversed(made)]
    ignored = tuple(f"C{numbers[place]}" for place in range(len(numbers)) if place not in read)
    return replace(graph, stem=(*stem, *graph.stem), ignored=(*ignored, *graph.ignored))
