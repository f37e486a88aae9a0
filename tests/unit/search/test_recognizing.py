"""The necks written by hand are points of the space: their answers draw a graph that computes the same."""

import random
from dataclasses import replace

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import Neck, PyramidSpec
from pyrafuse.necks.asff import ASFF
from pyrafuse.necks.asff_graph import asff_graph
from pyrafuse.necks.bfp import BFP
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn
from pyrafuse.necks.plain_fusion import concat_fusion, sum_fusion
from pyrafuse.necks.registry import NeckChain
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.points import POINTS, balanced_graph, chain_graphs, concat_graph
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.space import Space, draw, sample

INPUTS = PyramidSpec((8, 16, 24), (8, 16, 32))
SPACE = Space(channels=(8, 16, "as_inputs"))


def pyramid_of(spec: PyramidSpec, height: int, width: int):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    )


def fill_alike(drawn: Neck, neck: Neck, *, lacks: str = "nothing") -> None:
    """The same random weights for both, in their order, whatever they are called."""
    generator = torch.Generator().manual_seed(1)
    ours = [value for name, value in drawn.state_dict().items() if lacks not in name]
    for own, other in zip(ours, neck.state_dict().values(), strict=True):
        if own.is_floating_point():
            own.copy_(torch.rand(own.shape, generator=generator) * 0.2)
        other.copy_(own)


def assert_alike(first: Neck, second: Neck, size: tuple[int, int]) -> None:
    pyramid = pyramid_of(INPUTS, *size)
    assert first.features == second.features
    with torch.no_grad():
        for ours, theirs in zip(first.eval()(pyramid), second.eval()(pyramid), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * float(theirs.abs().max()))


def behind_fpn(make) -> NeckChain:
    first = fpn(INPUTS, out_channels=16)
    return NeckChain([first, make(first.features)])


@pytest.mark.parametrize(
    ("module", "graph"),
    [
        (lambda: fpn(INPUTS, out_channels=16, num_levels=5), None),
        (lambda: pafpn(INPUTS, out_channels=16, num_levels=4), None),
        (lambda: nas_fpn(INPUTS, out_channels=16, stack=2), None),
        (lambda: bifpn(INPUTS, out_channels=16), None),
        (lambda: bifpn(INPUTS, out_channels=16, repeats=1, num_levels=3, fusion="softmax"), None),
        (lambda: ASFF(INPUTS), asff_graph(INPUTS)),
        (lambda: sum_fusion(INPUTS), asff_graph(INPUTS, fusion="sum")),
        (lambda: concat_fusion(INPUTS), concat_graph(INPUTS)),
        (lambda: behind_fpn(ASFF), POINTS["asff"](INPUTS, 16, None)),
        (lambda: behind_fpn(concat_fusion), POINTS["concat_fusion"](INPUTS, 16, None)),
    ],
)
def test_a_neck_is_a_point(module, graph):
    neck = module()
    candidate = recognize(SPACE, INPUTS, neck.graph if graph is None else graph)

    def repeat(question, options):
        return options.index(candidate.answers.get(question, options[0]))

    drawn = GraphNeck(INPUTS, draw(SPACE, INPUTS, repeat).graph)
    assert drawn.graph == candidate.graph
    fill_alike(drawn, neck)
    for size in ((52, 76), (37, 83)):
        assert_alike(drawn, neck, size)


def test_the_balanced_pyramid_is_a_point():
    """Its mean is a softmax of one weight a level, which begins as a mean. Sides are multiples: windows are alike."""
    neck = behind_fpn(lambda features: BFP(features, refinement="conv"))
    drawn = GraphNeck(INPUTS, recognize(SPACE, INPUTS, POINTS["bfp"](INPUTS, 16, None)).graph)
    fill_alike(drawn, neck, lacks="edge_weights")
    assert_alike(drawn, neck, (64, 96))


@pytest.mark.parametrize("name", POINTS)
def test_points_are_read_back(name):
    graph = POINTS[name](INPUTS, 16, None)
    candidate = recognize(SPACE, INPUTS, graph, size=320)
    assert fingerprint(candidate.graph, INPUTS) == fingerprint(graph, INPUTS)
    assert candidate.size == 320
    assert recognize(SPACE, INPUTS, candidate.graph, size=320) == candidate


def test_what_is_drawn_is_recognized():
    rng = random.Random(0)
    for _ in range(60):
        candidate = sample(SPACE, INPUTS, rng)
        again = recognize(SPACE, INPUTS, candidate.graph, candidate.size)
        assert fingerprint(again.graph, INPUTS) == fingerprint(candidate.graph, INPUTS)
        assert [merge.inputs for merge in again.graph.merges] == [merge.inputs for merge in candidate.graph.merges]


FPN = fpn(INPUTS, out_channels=16).graph


@pytest.mark.parametrize(
    ("graph", "space", "message"),
    [
        (fpn(INPUTS, out_channels=32).graph, SPACE, "its channels is 32, and the choices there are 8, 16, as_inputs"),
        (FPN, replace(SPACE, max_merges=7), "its merges is 8, and the choices there are 3, 4, 5, 6, 7"),
        (FPN, replace(SPACE, fusions=("softmax",)), "fusion of merge M4 is sum, and only softmax can be drawn there"),
        (FPN, replace(SPACE, ups=("bilinear",)), "up of merge M4 is nearest, and only bilinear can be drawn there"),
        (
            fpn(INPUTS, out_channels=16, norm="batch_norm").graph,
            SPACE,
            "merge P3: its conv is '{norm: batch_norm}', and the choices there are none, plain_1x1",
        ),
        (pafpn(INPUTS, out_channels=16).graph, replace(SPACE, downs=("max_pool", "bilinear")), "its down is 'conv'"),
        (bifpn(INPUTS, out_channels=16, form="pan").graph, SPACE, "fusion of merge T7 is fast_normalized"),
        (nas_fpn(INPUTS, out_channels=16, stack=7).graph, SPACE, "its stack is 7, and the choices there are 1, 2, 3"),
        (
            Graph((Merge("P4", 4, ("C3", "C4", "C5"), fusion="concat"),), ("P4",), 16),
            replace(SPACE, outputs=((4,), (3, 4))),
            "its channels is 48",
        ),
        (
            Graph((Merge("P5", 5, ("C4", "S4", "C5")),), ("P5",), 16, (Merge("S4", 4, ("C3",)),), 2),
            replace(SPACE, outputs=((5,),)),
            "its stacked merges read both C4 and S4 from outside, at one level",
        ),
    ],
)
def test_what_the_space_does_not_hold_is_named(graph, space, message):
    with pytest.raises(PyrafuseError, match=message):
        recognize(space, INPUTS, graph)


def test_stacked_graphs_are_not_chained():
    stacked = bifpn(INPUTS, out_channels=16).graph
    with pytest.raises(PyrafuseError, match="a stacked graph cannot be chained"):
        chain_graphs(FPN, stacked, INPUTS)


def test_a_chain_reads_what_goes_out():
    chained = chain_graphs(FPN, balanced_graph(PyramidSpec((16,) * 3, INPUTS.strides)), INPUTS)
    ends = {merge.name: merge.inputs for merge in chained.merges}
    assert chained.outputs == ("P3x", "P4x", "P5x")
    assert ends["G4"] == ("P3", "P4", "P5")
    assert ends["P5x"] == ("P5", "G4")
