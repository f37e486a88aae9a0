"""What graphs with one fingerprint have in common, and what keeps fingerprints apart."""

from dataclasses import replace

import pytest

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.graph import Graph, Merge, unroll
from pyrafuse.necks.merging import Conv
from pyrafuse.search.canonical import fingerprint

INPUTS = PyramidSpec((8, 8, 8), (8, 16, 32))
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
        changed(1, conv=None),
        changed(2, down="conv"),
        changed(2, inputs=("C4", "P3", "T4")),
        replace(GRAPH, stack=2),
    ],
)
def test_what_makes_a_difference(other):
    assert fingerprint(other, INPUTS) != fingerprint(GRAPH, INPUTS)


def test_a_stack_is_what_it_unrolls_to():
    graph = bifpn(INPUTS, out_channels=8, repeats=3).graph
    merges, outputs = unroll(graph, {"C3": 3, "C4": 4, "C5": 5})
    written = Graph(merges=merges, outputs=outputs, channels=8)
    assert fingerprint(written, INPUTS) == fingerprint(graph, INPUTS)
