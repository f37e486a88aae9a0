"""Graphs as YAML: what a few lines mean, that written ones are read back, and what is complained of."""

import pytest
import torch
import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import part
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.necks.asff_graph import asff_graph
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.convolving import Conv
from pyrafuse.necks.fpn import fpn
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.graph_text import embed_graphs, read_graph, write_graph
from pyrafuse.necks.nas_fpn import nas_fpn
from pyrafuse.necks.pafpn import pafpn
from pyrafuse.necks.registry import create_neck, read_necks

INPUTS = PyramidSpec((4, 6, 8), (8, 16, 32))
TEXT = """\
channels: 16
defaults: {fusion: softmax, conv: {separable: true, before: silu, norm: batch_norm}}
merges:
  T4: [C4, C5]
  P3: [C3, T4]
  P4: {inputs: [C4, T4, P3], fusion: sum, conv: {kernel_size: 1}}
  last: {level: 5, inputs: [C5, P4], down: conv, project: {norm: batch_norm}, conv: null}
outputs: [P3, P4, last]
"""


def test_a_few_lines():
    conv = Conv(3, separable=True, before="silu", norm="batch_norm")
    assert read_graph(TEXT) == Graph(
        merges=(
            Merge("T4", 4, ("C4", "C5"), fusion="softmax", conv=conv),
            Merge("P3", 3, ("C3", "T4"), fusion="softmax", conv=conv),
            Merge("P4", 4, ("C4", "T4", "P3"), conv=Conv(1)),
            Merge("last", 5, ("C5", "P4"), fusion="softmax", down="conv", project=Conv(1, norm="batch_norm")),
        ),
        outputs=("P3", "P4", "last"),
        channels=16,
    )


@pytest.mark.parametrize(
    "graph",
    [
        read_graph(TEXT),
        fpn(INPUTS, out_channels=8, num_levels=5, extra="output", relu_before_extra=True).graph,
        pafpn(INPUTS, out_channels=8, start_level=1, norm="batch_norm", lateral_norm=False).graph,
        nas_fpn(INPUTS, out_channels=8, stack=2).graph,
        bifpn(INPUTS, out_channels=8, same_padding=True, redundant_bias=True).graph,
        bifpn(INPUTS, out_channels=8, form="qufpn", fusion="sum").graph,
        asff_graph(INPUTS),
        Graph((Merge("P4", 4, ("C3", "C4", "C5"), project=Conv(5)),), ("P4",)),
    ],
    ids=["text", "fpn", "pafpn", "nas_fpn", "bifpn", "qufpn", "asff", "wide projection"],
)
def test_written_graphs_are_read_back(graph):
    assert read_graph(write_graph(graph)) == graph


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels: 16", "chanels: 16", "unknown the graph: key 'chanels'; did you mean 'channels'"),
        ("channels: 16", "channels: many", "the graph: channels of the graph must be a whole number, got 'many'"),
        ("fusion: sum", "fusing: sum", "unknown key of the graph: merge P4 'fusing'; did you mean 'fusion'"),
        ("{kernel_size: 1}", "{kernel: 1}", "unknown key of the graph: merge P4: conv 'kernel'"),
        ("{kernel_size: 1}", "{kernel_size: 2}", "merge P4: conv: .*odd kernel, got 2"),
        ("{kernel_size: 1}", "1x1", "merge P4: conv must be a mapping such as"),
        ("{kernel_size: 1}", "{norm: bn}", "merge P4: conv: unknown norm 'bn'"),
        ("level: 5, ", "", "merge last: no number in its name tells the level"),
        ("level: 5", "level: top", "the graph: level of merge last must be a whole number, got 'top'"),
        ("T4: [C4, C5]", "T4: C4", r"inputs of merge T4 must be a list of names such as \[C4, P5\], got 'C4'"),
        ("  P3: [C3, T4]", "  T4: [C3, T4]", "line 5: there are two of T4"),
        ("outputs: [P3, P4, last]", "outputs: P3", "outputs of the graph must be a list of names"),
        ("fusion: sum", "up: 3", "up of merge P4 must be a name such as nearest, got 3"),
        ("fusion: sum", "down: 2.5", "down of merge P4 must be a name such as max_pool, got 2.5"),
        ("fusion: sum", "fusion: null", "fusion of merge P4 must be a name such as sum, got None"),
        ("fusion: sum", "fusion: [sum]", r"fusion of merge P4 must be a name such as sum, got \['sum'\]"),
        ("fusion: sum", "fusion: {a: b}", "fusion of merge P4 must be a name such as sum, got {'a': 'b'}"),
        ("fusion: sum", "width: 8.0", "width of merge P4 must be a whole number, got 8.0"),
        ("level: 5", "level: null", "level of merge last must be a whole number, got None"),
        ("channels: 16", "channels: true", "channels of the graph must be a whole number, got True"),
        ("[C4, T4, P3]", "[C4, T4, 3]", r"inputs of merge P4 must be a list of names .*, got \['C4', 'T4', 3\]"),
        ("size: 1}", "size: 3.0}", "merge P4: conv: kernel_size of a convolution must be a whole number, got 3.0"),
        ("size: 1}", "size: 5.5}", "merge P4: conv: kernel_size of a convolution must be a whole number, got 5.5"),
        ("size: 1}", "size: true}", "merge P4: conv: kernel_size of a convolution must be a whole number, got True"),
        ("size: 1}", "size: 1, bias: maybe}", "conv: bias of a convolution must be true or false, got 'maybe'"),
        ("separable: true", "separable: 'no'", "conv: separable of a convolution must be true or false, got 'no'"),
        ("norm: batch_norm}}", "norm: null}}", "conv: norm of a convolution must be a name such as none, got None"),
        ("size: 1}", "size: 1, eps: tiny}", "merge P4: conv: eps of a convolution must be a number, got 'tiny'"),
        ("size: 1}", "size: 1, eps: -1e-3}", "merge P4: conv: eps must be 0 or more, got -0.001"),
        ("size: 1}", "size: 1, momentum: 2}", "merge P4: conv: momentum must be in 0..1, got 2"),
        ("  P3: [C3, T4]", "  ? [a, b]\n  : [C3, T4]", "line 5: a key must be a name, not a list or mapping"),
        ("  P3: [C3, T4]", "  {a: b}: [C3, T4]", "line 5: a key must be a name, not a list or mapping"),
        ("merges:", "merges: [", "the graph is no YAML"),
        ("defaults: {", "defaults: [{", "the graph is no YAML"),
    ],
)
def test_complaints_name_the_place(old, new, message):
    assert old in TEXT
    with pytest.raises(PyrafuseError, match=message):
        read_graph(TEXT.replace(old, new))


@pytest.mark.parametrize("eps", ["1e-3", "1.0e-3", "'1e-3'", "0.001"])
def test_numbers_that_yaml_takes_for_words(eps):
    merge = f"{{inputs: [C3, C4, C5], conv: {{norm: batch_norm, eps: {eps}, momentum: 1e-2}}}}"
    (got,) = read_graph(f"merges: {{P3: {merge}}}\noutputs: [P3]").merges
    assert got.conv == Conv(norm="batch_norm", eps=0.001, momentum=0.01)


def test_not_a_graph(tmp_path):
    with pytest.raises(PyrafuseError, match=r"cannot read the graph .*none\.yaml"):
        read_graph(str(tmp_path / "none.yaml"))
    path = tmp_path / "list.yaml"
    path.write_text("- a\n")
    with pytest.raises(PyrafuseError, match="is no graph: keys `merges` and `outputs` are needed"):
        read_graph(str(path))


class TestAsANeck:
    def test_file_text_and_mapping(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(TEXT)
        for name in (str(path), TEXT):
            neck = create_neck(name, INPUTS)
            assert isinstance(neck, GraphNeck)
            assert neck.features == PyramidSpec((16, 16, 16), (8, 16, 32))
        assert embed_graphs(str(path)) == TEXT
        mapping = {"merges": {"P3": ["C3", "C4", "C5"]}, "outputs": ["P3"]}
        (text, other) = embed_graphs([mapping, "asff"])
        assert other == "asff"
        assert read_graph(text) == Graph((Merge("P3", 3, ("C3", "C4", "C5")),), ("P3",))

    def test_in_a_chain(self):
        for graph in (TEXT, read_graph(TEXT)):
            neck = create_neck([graph, "asff"], INPUTS)
            assert neck.features.channels == (16, 16, 16)

    def test_an_object_or_a_mapping(self):
        graph = read_graph(TEXT)
        for given in (graph, yaml.safe_load(TEXT)):
            neck = create_neck(given, INPUTS)
            assert isinstance(neck, GraphNeck)
            assert neck.graph == graph
            for embedded in (embed_graphs(given), *embed_graphs(["asff", given])[1:]):
                assert read_graph(embedded) == graph

    @pytest.mark.parametrize("given", [None, 3, [3], ["fpn", None], [["fpn"]], {"fpn"}])
    def test_what_is_no_neck_is_refused(self, given):
        with pytest.raises(PyrafuseError, match="a neck is a registered name, a graph, or a list of these; got "):
            create_neck(given, INPUTS)
        with pytest.raises(PyrafuseError, match="a neck is a registered name, a graph, or a list of these; got "):
            create_model("yolov3_small", num_classes=2, neck=given)

    def test_what_cannot_be_written_is_refused(self):
        with pytest.raises(PyrafuseError, match="holds plain values alone"):
            create_neck({"merges": {"P3": Merge("P3", 3, ("C3", "C4", "C5"))}, "outputs": ["P3"]}, INPUTS)
        twice = (Merge("P4", 4, ("C3", "C4")), Merge("P4", 4, ("C5",)))
        with pytest.raises(PyrafuseError, match="there are two of P4"):
            create_neck(Graph(twice, ("P4",)), INPUTS)

    def test_options_are_refused(self):
        with pytest.raises(PyrafuseError, match="a graph takes no options"):
            create_model("yolov3_small", neck=TEXT, necks={"graph": {"channels": 8}})

    def test_a_checkpoint_holds_the_graph(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(TEXT)
        options = {"backbone": {"width": 0.25}, "neck": (str(path),)}
        detector = create_model("yolov3_small", num_classes=2, **options).eval()
        save(detector, tmp_path / "model.pt")
        path.unlink()
        loaded = load(tmp_path / "model.pt")
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(loaded.decode(images).scores, detector.decode(images).scores)

    @pytest.mark.parametrize("form", ["alone", "row", "within a backbone"])
    def test_a_checkpoint_holds_an_object(self, form, tmp_path):
        graph = Graph((Merge("P3", 3, ("C3", "C4", "C5")),), ("P3",), channels=8)
        neck: dict = {"neck": graph if form == "alone" else ["identity", graph]}
        options = {"backbone": {"name": "resnet18", "width": 8, "strides": (8, 16, 32)}, **neck}
        if form == "within a backbone":
            row = part("chain", necks=read_necks(neck["neck"]))
            options = {"backbone": part("recursive_fpn", backbone=options["backbone"], neck=row), "neck": "identity"}
        detector = create_model("retinanet", num_classes=2, head={"num_convs": 1}, **options)
        save(detector, tmp_path / "model.pt")
        loaded = load(tmp_path / "model.pt")
        (found,) = (part for part in loaded.modules() if isinstance(part, GraphNeck))
        assert found.graph == graph
