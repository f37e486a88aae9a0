"""Operators that a user registers are drawn, built, run, told apart and kept in a graph's text."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import read_graph, write_graph
from pyrafuse.necks.merging import CONVOLVING, DOWN, FUSIONS, UP, Ascent, Descent, FusionPlace
from pyrafuse.necks.registry import NECKS
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.operators import FREE_DOWNS, FREE_FUSIONS, FREE_UPS
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.space import Space, sample

INPUTS = PyramidSpec((8, 16, 24), (8, 16, 32))


class Gate(nn.Module):
    """The first map, weighed by what the last one says of each channel."""

    def __init__(self, channels):
        super().__init__()
        self.weigh = nn.Linear(channels, channels)

    def forward(self, *xs):
        return xs[0] * self.weigh(xs[-1].mean(dim=(2, 3))).sigmoid()[:, :, None, None]


def has_parameters(made) -> bool:
    return isinstance(made, nn.Module) and any(True for _ in made.parameters())


def test_what_is_said_of_operators_is_so():
    """A new operator without parameters that is not listed would be told apart from itself."""
    place = FusionPlace("P4", ("C4", "C5"), 16, 8, 4, "relu")
    assert {name for name in FUSIONS if not has_parameters(FUSIONS[name](place))} == FREE_FUSIONS
    assert {name for name in UP if not has_parameters(UP[name](Ascent(8, 1, 8)))} == FREE_UPS
    assert {name for name in DOWN if not has_parameters(DOWN[name](Descent(8, 8, 2, Conv(1))))} == FREE_DOWNS


def test_the_kernel_of_a_way_down_is_its_own():
    def graph(down: str, size: int) -> Graph:
        return Graph((Merge("P5", 5, ("C3", "C4"), down=down, project=Conv(size)),), ("P5",), 8, ignored=("C5",))

    for down in CONVOLVING:
        necks = [GraphNeck(INPUTS, graph(down, size)) for size in (1, 5)]
        shapes = [[tuple(value.shape) for value in neck.parameters()] for neck in necks]
        assert shapes[0] == shapes[1]
        assert fingerprint(necks[0].graph, INPUTS) == fingerprint(necks[1].graph, INPUTS)


def test_registered_graphs_are_told_apart():
    inputs = PyramidSpec((16, 16, 16), (8, 16, 32))
    necks = {name: NECKS.build(name, inputs) for name in NECKS.names()}
    graphs = {name: neck.graph for name, neck in necks.items() if isinstance(neck, GraphNeck)}
    assert len({fingerprint(graph, inputs) for graph in graphs.values()}) == len(graphs) >= 8


@pytest.fixture
def operators(monkeypatch):
    monkeypatch.setitem(FUSIONS, "gate", lambda place: Gate(place.channels))
    monkeypatch.setitem(UP, "cubic", lambda way: lambda x, size: F.interpolate(x, tuple(size), mode="bicubic"))
    monkeypatch.setitem(DOWN, "mean", lambda way: nn.AvgPool2d(2**way.halvings, ceil_mode=True))


@pytest.mark.usefixtures("operators")
def test_a_users_operators_are_drawn_built_and_written_down():
    space = Space(fusions=("gate",), ups=("cubic",), downs=("mean",), channels=(8,), stacks=(1, 2))
    pyramid = tuple(torch.randn(2, c, -(-52 // s), -(-77 // s)) for c, s in zip(*vars(INPUTS).values(), strict=True))
    rng = random.Random(0)
    used = set()
    for _ in range(10):
        graph = sample(space, INPUTS, rng).graph
        neck = GraphNeck(INPUTS, read_graph(write_graph(graph)))
        assert neck.graph == graph
        for x, channels in zip(neck(pyramid), neck.features.channels, strict=True):
            assert x.shape[1] == channels
            assert x.isfinite().all()
        assert fingerprint(recognize(space, INPUTS, graph).graph, INPUTS) == fingerprint(graph, INPUTS)
        used |= {value for merge in (*graph.stem, *graph.merges) for value in (merge.fusion, merge.up, merge.down)}
    assert {"gate", "cubic", "mean"} <= used


@pytest.mark.usefixtures("operators")
def test_the_order_of_inputs_of_a_users_fusion_counts():
    first, second = (
        Graph((Merge("P4", 4, inputs, fusion="gate"),), ("P4",), channels=8, ignored=("C3",))
        for inputs in (("C4", "C5"), ("C5", "C4"))
    )
    assert fingerprint(first, INPUTS) != fingerprint(second, INPUTS)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"fusions": ("sum", "gates")}, UnknownNameError, "unknown fusion of the space 'gates'; choose from"),
        ({"ups": ("nearst",)}, UnknownNameError, "unknown up of the space 'nearst'; did you mean 'nearest'"),
        ({"downs": ("mean",)}, UnknownNameError, "unknown down of the space 'mean'"),
        ({"widths": ("wide",)}, UnknownNameError, "unknown width of the space 'wide'"),
        ({"ups": ()}, PyrafuseError, "ups of the space is empty: give at least one choice"),
        ({"ups": ("aligned",)}, PyrafuseError, "the space's only ways up are aligned"),
        ({"channels": (64, 64)}, PyrafuseError, "channels of the space holds 64 twice"),
        (
            {"channels": (0,)},
            PyrafuseError,
            "one of the channels of the space must be a whole number, 1 or more, got 0",
        ),
        ({"channels": ("wide",)}, PyrafuseError, "one of the channels of the space must be a whole number"),
        ({"stacks": (1.5,)}, PyrafuseError, "one of the stacks of the space must be a whole number"),
        ({"sizes": 320}, PyrafuseError, "sizes of the space is a list of choices, got 320"),
        ({"fusions": "sum"}, PyrafuseError, "fusions of the space is a list of choices, got 'sum'"),
        ({"outputs": ((5, 4),)}, PyrafuseError, "outputs of the space: levels go from the finest to the coarsest"),
        ({"outputs": (3, 4)}, PyrafuseError, r"a set of levels is a list such as \(3, 4, 5\), got 3"),
        ({"max_inputs": 1}, PyrafuseError, "max_inputs of the space must be a whole number, 2 or more, got 1"),
        ({"convs": {"mine": None}}, PyrafuseError, "convs of the space: 'mine' is None; give a Conv, or 'none': None"),
        ({"convs": {"none": Conv(3)}}, PyrafuseError, "convs of the space: 'none' is Conv"),
        ({"projects": {"mine": None}}, PyrafuseError, "projects of the space: 'mine' is None; give a Conv"),
        ({"convs": {"each": Conv(3)}}, PyrafuseError, "'each' cannot be a name in a space"),
        ({"fusions": ("concat",), "convs": {"none": None}}, PyrafuseError, "only fusion is concat, and it has no conv"),
        (
            {"convs": {"mine": Conv(norm="group_norm")}, "channels": (48,)},
            PyrafuseError,
            "group_norm needs multiples of 32 channels, and the space has 48",
        ),
    ],
)
def test_what_no_space_can_be_is_refused(choices, error, message):
    with pytest.raises(error, match=message):
        Space(**choices)


@pytest.mark.parametrize(
    ("space", "inputs", "message"),
    [
        (Space(outputs=((3, 4, 5, 6, 7),), max_merges=4), INPUTS, "no graph for the maps C3, C4, C5: at most 4 merges"),
        (Space(reads=((6, 7),)), INPUTS, "no graph for the maps C3, C4, C5"),
        (Space(outputs=((0, 1, 2),)), PyramidSpec((8,), (3,)), "no graph for the maps C2"),
        (
            Space(convs={"mine": Conv(norm="group_norm")}, channels=("as_inputs",)),
            INPUTS,
            "group_norm needs multiples of 32 channels, and the maps have",
        ),
    ],
)
def test_a_space_without_a_graph_says_so(space, inputs, message):
    with pytest.raises(PyrafuseError, match=message):
        sample(space, inputs, random.Random(0))


def test_spaces_are_told_apart():
    assert Space().fingerprint() == Space().fingerprint() == Space(ups=["nearest", "bilinear"]).fingerprint()
    others = [Space(ups=("nearest",)), Space(convs={"none": None, "mine": Conv(3)}), Space(max_merges=9)]
    assert len({space.fingerprint() for space in (Space(), *others)}) == 4
