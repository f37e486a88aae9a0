"""What a graph may be, what is refused, and that one runs as the same network written by hand."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.graph import Graph, Merge, number_levels, plan_graph
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn

INPUTS = PyramidSpec((4, 6, 8), (8, 16, 32))
SIX = PyramidSpec((1,) * 6, (1, 2, 4, 8, 16, 32))
GRAPH = Graph(
    merges=(
        Merge("T4", 4, ("C4", "C5")),
        Merge("P3", 3, ("C3", "T4"), conv=Conv()),
        Merge("P4", 4, ("T4", "P3"), conv=Conv()),
    ),
    outputs=("P3", "P4"),
    channels=5,
)


def changed(number: int, **values) -> Graph:
    merges = list(GRAPH.merges)
    merges[number] = replace(merges[number], **values)
    return replace(GRAPH, merges=tuple(merges))


def pyramid_of(spec: PyramidSpec, height=52, width=76):
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, c, -(-height // s), -(-width // s), generator=generator)
        for c, s in zip(spec.channels, spec.strides, strict=True)
    )


class TestLevels:
    def test_numbers_are_the_papers(self):
        assert number_levels((4, 8, 16)) == (2, 3, 4)
        assert number_levels((8, 32)) == (3, 5)
        assert number_levels((5, 6, 7)) == (2, 3, 4)  # no two of one number

    def test_strides_go_on(self):
        more = replace(GRAPH, merges=(*GRAPH.merges, Merge("P5", 5, ("P4",)), Merge("P6", 6, ("P5",))))
        plan = plan_graph(replace(more, outputs=("P3", "P4", "P5", "P6")), INPUTS)
        assert plan.features == PyramidSpec((5, 5, 5, 5), (8, 16, 32, 64))

    def test_a_finer_level(self):
        graph = Graph((Merge("P2", 2, ("C3", "C4", "C5"), down="conv"),), ("P2",), channels=3)
        neck = GraphNeck(INPUTS, graph)
        assert neck.features == PyramidSpec((3,), (4,))
        assert neck(pyramid_of(INPUTS))[0].shape == (2, 3, 14, 20)


class TestChannels:
    def test_of_a_concatenation(self):
        plain = Graph((Merge("P4", 4, ("C3", "C4", "C5"), fusion="concat"),), ("P4",))
        assert plan_graph(plain, INPUTS).features.channels == (18,)
        merges = (Merge("P4", 4, ("C3", "C4", "C5"), fusion="concat", conv=Conv(1), channels=7),)
        assert plan_graph(Graph(merges, ("P4",)), INPUTS).features.channels == (7,)

    def test_projection_only_where_they_differ(self):
        neck = GraphNeck(PyramidSpec((5, 6, 8), (8, 16, 32)), GRAPH)
        projected = {name.split(".edges")[0] for name, _ in neck.named_parameters() if ".project." in name}
        assert projected == {"merges.T4"}

    def test_nobody_makes_them(self):
        with pytest.raises(PyrafuseError, match="merge P4 gives 18 channels and no convolution makes 9 of them"):
            plan_graph(Graph((Merge("P4", 4, ("C3", "C4", "C5"), fusion="concat", channels=9),), ("P4",)), INPUTS)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (replace(GRAPH, merges=()), "the graph has no merges"),
        (replace(GRAPH, stack=0), "at least once, got stack=0"),
        (replace(GRAPH, channels=0), "must be positive, got 0"),
        (changed(0, name="P3"), "there are two of P3: it is a merge already"),
        (changed(1, name="C4"), "there are two of C4: it comes in"),
        (changed(1, name="P-3"), "'P-3' cannot be a merge's name"),
        (changed(1, name="keys"), "'keys' cannot be a merge's name"),
        (changed(1, name="training"), "'training' cannot be a merge's name"),
        (changed(1, name="_modules"), "'_modules' cannot be a merge's name"),
        (changed(0, inputs=()), "merge T4 has no inputs"),
        (changed(0, inputs=("C4", "T4")), "merge T4 reads itself"),
        (changed(0, inputs=("C4", "P4")), "merge T4 reads P4, which comes later"),
        (changed(0, inputs=("C4", "C6")), "unknown input of merge T4: 'C6'; choose from C3, C4, C5"),
        (changed(0, inputs=("C4", "C4")), "merge T4 reads C4 twice"),
        (changed(0, level=9), "merge T4: there is no level 9; so far there are 3, 4, 5, and a merge may add 2 or 6"),
        (changed(0, fusion="summ"), "unknown fusion of merge T4: 'summ'; did you mean 'sum'"),
        (changed(0, up="down"), "unknown up of merge T4: 'down'"),
        (changed(0, down="maxpool"), "unknown down of merge T4: 'maxpool'; did you mean 'max_pool'"),
        (
            changed(1, up="aligned", inputs=("T4", "C3")),
            "to the first input, and T4 is of level 4: name an",
        ),
        (
            changed(1, project=Conv(block="selection")),
            "P3: project is a convolution alone, got the block selection",
        ),
        (changed(1, fusion="global_attention", inputs=("C3",)), "merge P3: global_attention takes 2 inputs, got 1: C3"),
        (changed(1, width=0), "merge P3: width must be positive, got 0"),
        (replace(GRAPH, outputs=()), "the graph has no outputs"),
        (replace(GRAPH, outputs=("P3", "P5")), "unknown output of the graph: 'P5'"),
        (replace(GRAPH, outputs=("P4", "P3")), r"P3 \(level 3\) follows P4 \(level 4\)"),
        (replace(GRAPH, outputs=("P4", "P4")), r"P4 \(level 4\) follows P4"),
        (replace(GRAPH, outputs=("P3",)), "nothing reads P4: read it, put it out, or strike it"),
        (changed(0, inputs=("C4",)), "nothing reads C5: read it, or list it in `ignored`"),
        (replace(GRAPH, ignored=("C5",)), "C5 is ignored, yet it is read"),
        (replace(GRAPH, ignored=("C9",)), "unknown ignored map: 'C9'"),
    ],
)
def test_faults_are_named(graph, message):
    with pytest.raises(PyrafuseError, match=message):
        plan_graph(graph, INPUTS)


class TestTypes:
    @pytest.mark.parametrize(
        ("create", "message"),
        [
            (lambda: Merge(3, 3, ("C3",)), "name of merge 3 must be a name such as P4, got 3"),
            (lambda: Merge("P3", 3, "C3"), "inputs of merge P3 must be a list of names such as .*, got 'C3'"),
            (lambda: Merge("P3", 3.0, ("C3",)), "level of merge P3 must be a whole number, got 3.0"),
            (lambda: Merge("P3", True, ("C3",)), "level of merge P3 must be a whole number, got True"),
            (lambda: Merge("P3", 3, ("C3",), conv=3), "conv of merge P3 must be a Conv, got 3"),
            (lambda: Merge("P3", 3, ("C3",), project=None), "project of merge P3 must be a Conv, got None"),
            (lambda: replace(GRAPH, stack="2"), "stack of the graph must be a whole number, got '2'"),
            (lambda: replace(GRAPH, merges=("P3",)), r"merges of the graph must be a list of Merge, got \('P3',\)"),
            (lambda: Conv(block="selected"), "unknown block 'selected'; did you mean 'selection'"),
            (lambda: Conv(depth=0), "a block has a depth of 1 or more, got 0"),
            (lambda: Conv(depth=2), "the block conv has no depth: leave it out; it has kernel_size, separable"),
            (lambda: Conv(eps="1e-3"), "eps of a convolution must be a number, got '1e-3'"),
        ],
    )
    def test_wrong_ones_are_named(self, create, message):
        with pytest.raises(PyrafuseError, match=message):
            create()

    def test_lists_become_tuples(self):
        graph = Graph([Merge("P3", 3, ["C3", "C4", "C5"])], ["P3"])
        assert graph == Graph((Merge("P3", 3, ("C3", "C4", "C5")),), ("P3",))


class TestStack:
    GRAPH = Graph(
        stem=(Merge("S5", 5, ("C5",), conv=Conv(1)),),
        merges=(Merge("T4", 4, ("C4", "S5")), Merge("P3", 3, ("C3", "T4")), Merge("P5", 5, ("S5", "P3"))),
        outputs=("P3", "T4", "P5"),
        stack=3,
    )

    def test_later_times_read_what_came_out_before(self):
        steps = plan_graph(self.GRAPH, INPUTS).steps
        assert [(step.merge.name, step.merge.inputs) for step in steps] == [
            ("S5", ("C5",)),
            ("T4_1", ("C4", "S5")),
            ("P3_1", ("C3", "T4_1")),
            ("P5_1", ("S5", "P3_1")),
            ("T4_2", ("T4_1", "P5_1")),
            ("P3_2", ("P3_1", "T4_2")),
            ("P5_2", ("P5_1", "P3_2")),
            ("T4_3", ("T4_2", "P5_2")),
            ("P3_3", ("P3_2", "T4_3")),
            ("P5_3", ("P5_2", "P3_3")),
        ]

    def test_what_is_not_put_out_is_read_again(self):
        steps = plan_graph(replace(GRAPH, stack=2), INPUTS).steps
        assert [(step.merge.name, step.merge.inputs) for step in steps][3:] == [
            ("T4_2", ("P4_1", "C5")),
            ("P3_2", ("P3_1", "T4_2")),
            ("P4_2", ("T4_2", "P3_2")),
        ]

    @pytest.mark.parametrize(
        ("stem", "inputs", "message"),
        [
            ("P4_1", ("C3", "P4_1", "C5", "C4"), "two of P4_1: .* a run of merge P4 is called so; call P4_1 otherwise"),
            ("P4_2", ("C3", "P4_2", "C5", "C4"), "two of P4_2"),
            ("S4", ("C3", "C4", "S4", "C5"), "merge P4 reads P4_1 twice as P4_2: .* C4 and S4 are both the output"),
        ],
    )
    def test_faults_of_later_runs_are_named(self, stem, inputs, message):
        graph = Graph(stem=(Merge(stem, 4, ("C4",), conv=Conv()),), merges=(Merge("P4", 4, inputs),), outputs=("P4",))
        plan_graph(graph, INPUTS)
        with pytest.raises(PyrafuseError, match=message):
            plan_graph(replace(graph, stack=2), INPUTS)


def up(x, like):
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def assert_equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


class TestAgainstHand:
    """Forms that have no plain one to be measured against, written down without the executor."""

    @torch.no_grad()
    def test_fpn(self):
        neck = fpn(INPUTS, out_channels=5, num_levels=5, extra="lateral", relu_before_extra=True).eval()
        c3, c4, c5 = pyramid_of(INPUTS)
        m = neck.merges
        l5 = m["L5"].conv.conv(c5)
        m4 = m["L4"].conv.conv(c4) + up(l5, c4)
        m3 = m["L3"].conv.conv(c3) + up(m4, c3)
        p6 = m["P6"].edges[0].halve[0].conv(l5)
        p7 = m["P7"].edges[0].halve[0].conv(p6.relu())
        expected = (m["P3"].conv.conv(m3), m["P4"].conv.conv(m4), m["P5"].conv.conv(l5), p6, p7)
        assert_equal(neck((c3, c4, c5)), expected)

    @pytest.mark.parametrize("fusion", ["fast_normalized", "softmax", "sum"])
    @torch.no_grad()
    def test_bifpn(self, fusion):
        spec = PyramidSpec((6, 6, 6), (8, 16, 32))
        neck = bifpn(spec, out_channels=6, num_levels=3, repeats=1, fusion=fusion).eval()
        c3, c4, c5 = pyramid_of(spec)
        weights = {}
        for name, merge in neck.merges.items():
            if fusion != "sum":
                merge.fusion.edge_weights.copy_(torch.randn(len(merge.edges)))
                w = merge.fusion.edge_weights
                weights[name] = w.softmax(0) if fusion == "softmax" else w.clamp(min=0) / (w.clamp(min=0).sum() + 1e-4)

        def merge(name, *xs):
            w = weights.get(name, torch.ones(len(xs)))
            conv = neck.merges[name].conv
            x = F.silu(sum(wi * x for wi, x in zip(w, xs, strict=True)))
            return conv.norm(conv.conv(conv.depthwise(x)))

        def down(x):
            return F.max_pool2d(x, 3, 2, 1)

        t4 = merge("T4", c4, up(c5, c4))
        p3 = merge("P3", c3, up(t4, c3))
        p4 = merge("P4", c4, t4, down(p3))
        p5 = merge("P5", c5, down(p4))
        assert_equal(neck((c3, c4, c5)), (p3, p4, p5))


class TestParts:
    """The executor keeps its parts at hand; they stay the module's own."""

    @torch.no_grad()
    def test_a_copy_has_its_own(self):
        neck = bifpn(INPUTS, out_channels=4, num_levels=3, repeats=1).eval()
        other = copy.deepcopy(neck)
        before = neck(pyramid_of(INPUTS))
        for parameter in other.parameters():
            parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(neck(pyramid_of(INPUTS)), before, strict=True))
        assert not any(x.any() for x in other(pyramid_of(INPUTS)))

    @torch.no_grad()
    def test_layers_put_in_their_place_run(self):
        neck = bifpn(INPUTS, out_channels=4, num_levels=3, repeats=1).eval()
        synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(neck))
        ran = []
        norms = [part for part in synchronised.modules() if isinstance(part, nn.SyncBatchNorm)]
        for norm in norms:
            norm.register_forward_hook(lambda norm, *_: ran.append(norm))
        assert_equal(synchronised(pyramid_of(INPUTS)), neck(pyramid_of(INPUTS)))
        assert sorted(map(id, ran)) == sorted(map(id, norms))
        assert len(norms) == 8  # of four merges, and of four inputs that have other channels


class TestConstructors:
    def test_levels_that_do_not_fit(self):
        with pytest.raises(ValueError, match="less than the 3 levels that are read: raise it, or raise start_level"):
            fpn(INPUTS, num_levels=2)
        assert len(fpn(INPUTS, num_levels=2, start_level=1).features) == 2
        with pytest.raises(ValueError, match=r"num_levels=2 is less than the 3 levels that are read: raise it$"):
            bifpn(INPUTS, num_levels=2)
        with pytest.raises(ValueError, match="one of the 3 levels from 0 on, got 3"):
            pafpn(INPUTS, start_level=3)
        with pytest.raises(ValueError, match="found for 5 levels, and 6 are read from start_level=0"):
            nas_fpn(SIX)
        assert len(nas_fpn(SIX, out_channels=2, stack=1, start_level=1).features) == 5
        with pytest.raises(ValueError, match="two levels at least"):
            bifpn(PyramidSpec((4,), (8,)), num_levels=1)

    def test_bifpn_reads_all_levels(self):
        assert bifpn(INPUTS, out_channels=2, repeats=1).features.strides == (8, 16, 32, 64, 128)
        assert bifpn(SIX, out_channels=2, repeats=1).features.strides == SIX.strides

    def test_choices(self):
        with pytest.raises(PyrafuseError, match="unknown way to extra levels 'pool'"):
            fpn(INPUTS, extra="pool")
        with pytest.raises(PyrafuseError, match="unknown form of BiFPN 'bi'"):
            bifpn(INPUTS, form="bi")
        with pytest.raises(PyrafuseError, match="unknown norm 'bn'"):
            fpn(INPUTS, norm="bn")
        with pytest.raises(ValueError, match="odd kernel, got 2"):
            Conv(2)

    def test_a_single_level(self):
        one = PyramidSpec((4,), (8,))
        for neck in (pafpn(one, out_channels=4, num_levels=3), fpn(one, out_channels=4, num_levels=3, extra="output")):
            assert [x.shape[2:] for x in neck((torch.zeros(1, 4, 7, 9),))] == [(7, 9), (4, 5), (2, 3)]
