"""What graphs with one fingerprint have in common, and what keeps fingerprints apart."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge, plan_graph, unroll
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.space import Space, sample

INPUTS = PyramidSpec((8, 8, 8), (8, 16, 32))
OTHERS = PyramidSpec((4, 6, 8), (8, 16, 32))
GRAPH = Graph(
    merges=(
        Merge("T4", 4, ("C4", "C5")),
        Merge("P3", 3, ("C3", "T4"), conv=Conv()),
        Merge("P4", 4, ("T4", "P3"), conv=Conv()),
    ),
    outputs=("P3", "P4"),
    channels=8,
)


def changed(number: int, **values) -> Graph:
    merges = list(GRAPH.merges)
    merges[number] = replace(merges[number], **values)
    return replace(GRAPH, merges=tuple(merges))


@pytest.mark.parametrize(
    "other",
    [
        changed(0, inputs=("C5", "C4")),
        changed(0, project=Conv(1, norm="batch_norm")),  # all channels are alike
        changed(0, down="conv"),  # nothing comes from a finer level
        changed(1, conv=Conv(eps=1e-3)),  # there is no norm
        changed(1, conv=Conv(bias=True)),
        changed(1, down="bilinear"),
        changed(1, weight_channels=8),
    ],
)
def test_what_makes_no_difference(other):
    assert fingerprint(other, INPUTS) == fingerprint(GRAPH, INPUTS)


@pytest.mark.parametrize(
    "other",
    [
        changed(0, up="bilinear"),
        changed(0, fusion="softmax"),
        changed(1, conv=Conv(1)),
        changed(1, conv=Conv(bias=False)),
        changed(1, conv=Conv(block="selection")),
        changed(1, conv=None),
        changed(2, down="conv"),
        changed(2, inputs=("C4", "P3", "T4")),
        replace(GRAPH, stack=2),
        replace(GRAPH, channels=16),
    ],
)
def test_what_makes_a_difference(other):
    assert fingerprint(other, INPUTS) != fingerprint(GRAPH, INPUTS)


def test_what_comes_in_makes_a_difference():
    assert fingerprint(GRAPH, OTHERS) != fingerprint(GRAPH, INPUTS)


def test_a_stack_is_what_it_unrolls_to():
    graph = bifpn(INPUTS, out_channels=8, repeats=3).graph
    merges, outputs = unroll(graph, {"C3": 3, "C4": 4, "C5": 5})
    written = Graph(merges=merges, outputs=outputs, channels=8)
    assert fingerprint(written, INPUTS) == fingerprint(graph, INPUTS)


def convolved(*inputs: tuple[str, ...], conv: Conv | None) -> Graph:
    """Two merges of these inputs, both added to C5."""
    merges = tuple(Merge(f"M{n}", 4, names, conv=conv) for n, names in enumerate(inputs))
    end = Merge("P5", 5, ("C5", *(merge.name for merge in merges)))
    return Graph((*merges, end), ("P5",), channels=8)


def test_equal_merges_with_parameters_are_two_and_those_without_are_one():
    once, twice = ("C3", "C4"), ("C4", "C3")
    one = Graph(
        (
            Merge("A4", 4, once, conv=Conv()),
            Merge("B5", 5, ("C5", "A4"), fusion="softmax"),
            Merge("P5", 5, ("B5", "A4"), fusion="softmax"),
        ),
        ("P5",),
        channels=8,
    )
    merges = (one.merges[0], Merge("D4", 4, twice, conv=Conv()), *one.merges[1:])
    two = replace(one, merges=(*merges[:3], replace(merges[3], inputs=("B5", "D4"))))
    assert fingerprint(one, INPUTS) != fingerprint(two, INPUTS)
    bare = [replace(graph, merges=tuple(replace(merge, conv=None) for merge in graph.merges)) for graph in (one, two)]
    assert fingerprint(bare[0], INPUTS) == fingerprint(bare[1], INPUTS)


def test_twins_and_pairs_of_chains_are_told_from_crossed_ones():
    """Both have two merges of each of two kinds, which read the same kinds; only who reads whom differs."""

    def graph(*, is_crossed: bool) -> Graph:
        first = [Merge(f"A{n}", 4, ("C4",), conv=Conv()) for n in "ab"]
        second = [Merge(f"B{n}", 4, (f"A{n}",), conv=Conv(1)) for n in "ab"]
        ends = [
            Merge(f"P{level}", level, (f"A{a}", f"B{b}"), fusion="softmax")
            for level, a, b in ((3, "a", "b" if is_crossed else "a"), (5, "b", "a" if is_crossed else "b"))
        ]
        return Graph((*first, *second, *ends), ("P3", "P5"), channels=8, ignored=("C3", "C5"))

    straight, crossed = graph(is_crossed=False), graph(is_crossed=True)
    assert fingerprint(straight, INPUTS) != fingerprint(crossed, INPUTS)
    other = replace(straight, merges=(*straight.merges[1::-1], *straight.merges[3:1:-1], *straight.merges[4:]))
    assert fingerprint(straight, INPUTS) == fingerprint(other, INPUTS)


def test_a_new_level_is_as_large_as_what_arrives_first():
    """31 pixels become 16 cells by one way down, and 15 by the other, whichever comes first."""
    ways = [Merge("A6", 6, ("C5",), down="max_pool_floor"), Merge("B6", 6, ("C5",), down="max_pool")]
    end = Merge("P6", 6, ("A6", "B6"))
    first, second = (Graph((*merges, end), ("P6",), channels=8, ignored=("C3", "C4")) for merges in (ways, ways[::-1]))
    maps = tuple(torch.randn(1, 8, side, side) for side in (121, 61, 31))
    assert [GraphNeck(INPUTS, graph)(maps)[0].shape[-1] for graph in (first, second)] == [15, 16]
    assert fingerprint(first, INPUTS) != fingerprint(second, INPUTS)


def test_a_graph_with_faults_has_none():
    with pytest.raises(PyrafuseError, match="merge T4 reads C4 twice"):
        fingerprint(changed(0, inputs=("C4", "C4")), INPUTS)


# graphs written otherwise


def rename(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    names = {merge.name: f"N{n}" for n, merge in enumerate(rng.sample(graph.merges, len(graph.merges)))}
    merges = tuple(
        replace(merge, name=names[merge.name], inputs=tuple(names.get(one, one) for one in merge.inputs))
        for merge in graph.merges
    )
    return replace(graph, merges=merges, outputs=tuple(names[one] for one in graph.outputs))


def reorder(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    """Neighbours change places, but for those that a level owes its size to."""
    merges = list(graph.merges)
    for place in rng.sample(range(len(merges) - 1), len(merges) - 1):
        first, second = merges[place : place + 2]
        if first.name not in second.inputs and first.level in (3, 4, 5) and second.level in (3, 4, 5):
            merges[place : place + 2] = [second, first]
    return replace(graph, merges=tuple(merges))


def turn_inputs(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    merges = tuple(
        replace(merge, inputs=tuple(rng.sample(merge.inputs, len(merge.inputs))))
        if merge.fusion in ("sum", "softmax", "fast_normalized", "spatial_softmax") and merge.level in (3, 4, 5)
        else merge
        for merge in graph.merges
    )
    return replace(graph, merges=merges)


def change_what_nothing_uses(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    levels = {f"C{n}": n for n in (3, 4, 5)} | {merge.name: merge.level for merge in graph.merges}
    merges = []
    for merge in graph.merges:
        ways = [levels[name] - merge.level for name in merge.inputs]
        if max(ways) <= 0:
            merge = replace(merge, up=rng.choice(["nearest", "bilinear", "carafe"]))
        if min(ways) >= 0:
            merge = replace(merge, down=rng.choice(["max_pool", "conv", "bilinear"]))
        merges.append(merge)
    return replace(graph, merges=tuple(merges))


def insert_identity(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    place = rng.randrange(len(graph.merges))
    merge = graph.merges[place]
    between = Merge("Z", merge.level, (merge.name,))
    behind = tuple(
        replace(one, inputs=tuple("Z" if name == merge.name else name for name in one.inputs))
        for one in graph.merges[place + 1 :]
    )
    outputs = tuple("Z" if name == merge.name else name for name in graph.outputs)
    return replace(graph, merges=(*graph.merges[: place + 1], between, *behind), outputs=outputs)


def take_apart(graph: Graph, inputs: PyramidSpec, rng: random.Random) -> Graph:
    """A sum of three becomes a sum of one and of a sum; what is convolved becomes two merges."""
    merges: list[Merge] = []
    for n, merge in enumerate(graph.merges):
        if merge.fusion == "sum" and len(merge.inputs) > 2 and merge.level in (3, 4, 5):
            inner = replace(merge, name=f"I{n}", inputs=merge.inputs[1:], conv=None)
            merges += [inner, replace(merge, inputs=(merge.inputs[0], inner.name))]
        elif merge.conv is not None and len(merge.inputs) > 1 and merge.fusion != "concat":
            fused = replace(merge, name=f"F{n}", conv=None)
            merges += [fused, Merge(merge.name, merge.level, (fused.name,), conv=merge.conv)]
        else:
            merges.append(merge)
    return replace(graph, merges=tuple(merges))


REWRITES: tuple[Callable[[Graph, PyramidSpec, random.Random], Graph], ...] = (
    rename,
    reorder,
    turn_inputs,
    change_what_nothing_uses,
    insert_identity,
    take_apart,
)


def fill(neck: GraphNeck) -> GraphNeck:
    """Weights that only depend on the place in the kernel: equal parts have the same, whatever they are called."""
    with torch.no_grad():
        for value in neck.state_dict().values():
            if value.is_floating_point():
                grid = torch.arange(1, 1 + value[0, 0].numel()) if value.ndim == 4 else torch.ones(())
                value.copy_((grid.reshape(value.shape[2:]) if value.ndim == 4 else grid) / value[0].numel())
    return neck.double().eval()


def run(graph: Graph, inputs: PyramidSpec):
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.rand(1, c, -(-37 // s), -(-53 // s), generator=generator).double()
        for c, s in zip(inputs.channels, inputs.strides, strict=True)
    ]
    with torch.no_grad():
        return fill(GraphNeck(inputs, graph))(tuple(maps))


UNSTACKED = Space(stacks=(1,), channels=(8,), max_merges=9, reads=((3, 4, 5),))


@pytest.mark.parametrize("inputs", [INPUTS, OTHERS], ids=["alike", "others"])
def test_rewriting_keeps_what_is_computed_and_the_fingerprint(inputs):
    rng = random.Random(0)
    for round_ in range(30):
        graph = sample(UNSTACKED, inputs, rng).graph
        graph = replace(graph, merges=(*graph.stem, *graph.merges), stem=())
        other = graph
        for rewrite in rng.sample(REWRITES, 4):
            other = rewrite(other, inputs, rng)
        plan_graph(other, inputs)
        assert fingerprint(other, inputs) == fingerprint(graph, inputs)
        if round_ < 5:
            for ours, theirs in zip(run(graph, inputs), run(other, inputs), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


FREE = Space(
    fusions=("sum", "global_attention"),
    ups=("nearest", "bilinear"),
    downs=("max_pool", "bilinear", "subsample"),
    convs={"none": None},
    channels=(8,),
    stacks=(1, 2),
    outputs=((4,), (3, 4)),
    reads=((3, 4), (4,)),
    max_merges=3,
    max_inputs=2,
)


def test_without_parameters_one_fingerprint_is_one_function():
    """Small graphs are drawn until many coincide: those of one fingerprint compute the same, those of two rarely do."""
    rng = random.Random(0)
    found: dict[str, tuple[torch.Tensor, ...]] = {}
    num_met = 0
    for _ in range(250):
        graph = sample(FREE, INPUTS, rng).graph
        outputs = run(graph, INPUTS)
        before = found.setdefault(fingerprint(graph, INPUTS), outputs)
        num_met += before is not outputs
        for ours, theirs in zip(outputs, before, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    sums = {tuple(round(float(x.pow(2).sum()), 6) for x in outputs) for outputs in found.values()}
    assert num_met > 30
    assert len(sums) > 0.9 * len(found)


def test_changes_of_the_function_change_the_fingerprint():
    rng = random.Random(1)
    num_tried = 0
    for _ in range(60):
        graph = sample(UNSTACKED, INPUTS, rng).graph
        place = rng.randrange(len(graph.merges))
        merge = graph.merges[place]
        changes = [replace(merge, conv=Conv(7))]
        if len(merge.inputs) > 1:
            changes += [replace(merge, fusion="softmax" if merge.fusion != "softmax" else "fast_normalized")]
        unread = [f"C{n}" for n in (3, 4, 5) if f"C{n}" not in merge.inputs]
        if unread and merge.fusion not in ("global_attention", "concat"):
            changes.append(replace(merge, inputs=(*merge.inputs, rng.choice(unread))))
        for change in changes:
            other = replace(graph, merges=(*graph.merges[:place], change, *graph.merges[place + 1 :]))
            num_tried += 1
            assert fingerprint(other, INPUTS) != fingerprint(graph, INPUTS)
    assert num_tried > 120
