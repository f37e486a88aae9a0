"""Operators that graphs share: what they compute, and all of them in one exported graph of free sizes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.convolving import BLOCKS, Conv, create_block
from pyrafuse.necks.graph import Graph, Merge
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.necks.merging import DOWN, FUSIONS, UP, Descent, Edge, Injection

INPUTS = PyramidSpec((4, 6), (8, 16))


def operators():
    """One merge for each operator; all of them are read at the end."""
    merges = [Merge(f"up_{name}", 3, ("C3", "C4"), up=name) for name in UP]
    merges += [Merge(f"down_{name}", 4, ("C4", "C3"), down=name) for name in DOWN]
    merges += [Merge(f"fuse_{name}", 3, ("C3", "C4"), fusion=name, width=6) for name in FUSIONS]
    merges += [Merge(f"block_{name}", 3, ("C3",), conv=Conv(block=name)) for name in BLOCKS]
    fine, coarse = (tuple(m.name for m in merges if m.level == level) for level in (3, 4))
    ends = (Merge("P3", 3, fine), Merge("P4", 4, coarse))
    return Graph(merges=(*merges, *ends), outputs=("P3", "P4"), channels=6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own, and onnxscript's
@torch.no_grad()
def test_every_operator_in_one_onnx_graph_of_free_sizes():
    import onnxruntime

    torch.manual_seed(0)
    neck = GraphNeck(INPUTS, operators()).eval()
    for name, parameter in neck.named_parameters():
        if ".offset." in name or ".encode." in name:  # which start at zero
            nn.init.normal_(parameter, std=0.2)
    fine, coarse = torch.randn(2, 4, 10, 14), torch.randn(2, 6, 5, 7)
    batch, rows, columns = Dim("batch", max=64), Dim("rows", min=2, max=512), Dim("columns", min=2, max=512)
    shapes = (({0: batch, 2: 2 * rows, 3: 2 * columns}, {0: batch, 2: rows, 3: columns}),)
    program = torch.export.export(neck, ((fine, coarse),), dynamic_shapes=shapes, strict=False)
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    for count, height, width in ((2, 5, 7), (1, 2, 3), (3, 8, 4)):
        pyramid = torch.randn(count, 4, 2 * height, 2 * width), torch.randn(count, 6, height, width)
        found = session.run(None, dict(zip(names, (x.numpy() for x in pyramid), strict=True)))
        for ours, theirs in zip(neck(pyramid), found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-3, atol=1e-3 * ours.abs().max().item())


class TestWaysDown:
    def test_means_of_what_is_there(self):
        edge = Edge((1, 1), (3, 4), up="nearest", down="avg_pool", project=Conv(1))
        x = torch.arange(9.0).view(1, 1, 3, 3)
        assert edge(x, (2, 2)).tolist() == [[[[2, 3.5], [6.5, 8]]]]
        assert edge(x[..., :1, :1], (1, 1)).tolist() == [[[[0]]]]

    @torch.no_grad()
    def test_patches_do_not_overlap(self):
        form = Conv(1, norm="batch_norm", activation="relu")
        way = DOWN["patch_conv"](Descent(2, 3, 2, form)).eval()
        assert way.conv.weight.shape == (3, 2, 4, 4)
        x = torch.randn(1, 2, 6, 4)
        expected = torch.zeros(1, 3, 2, 1)
        for row in range(2):
            patch = x[0, :, 4 * row : 4 * row + 4, :]
            filled = F.pad(patch, (0, 0, 0, 4 - patch.shape[1]))
            expected[0, :, row, 0] = (way.conv.weight * filled).sum(dim=(1, 2, 3)).relu() / (1 + 1e-5) ** 0.5
        torch.testing.assert_close(way(x), expected)


@torch.no_grad()
def test_injection():
    fusion = Injection(2).eval()
    first, second = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)

    def convolve(part, x):
        return torch.einsum("oi,bihw->bohw", part.conv.weight[..., 0, 0], x) / (1 + 1e-5) ** 0.5

    gate = 1 / (1 + (-convolve(fusion.weigh, second)).exp())
    expected = convolve(fusion.local, first) * gate + convolve(fusion.embed, second)
    torch.testing.assert_close(fusion(first, second), expected)


class TestBlocks:
    @torch.no_grad()
    def test_residual_units(self):
        torch.manual_seed(0)
        block = create_block(3, 5, Conv(block="residual", depth=2, norm="batch_norm", activation="relu")).eval()
        x = torch.randn(1, 3, 4, 4)
        expected = block[0](x)
        assert block[0].conv.kernel_size == (1, 1)
        for unit in block[1:]:
            inner = F.conv2d(expected, unit.first.conv.weight, padding=1) / (1 + 1e-5) ** 0.5
            inner = F.conv2d(inner.relu(), unit.second.conv.weight, padding=1) / (1 + 1e-5) ** 0.5
            expected = (expected + inner).relu()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
        assert len(create_block(5, 5, Conv(block="residual", depth=2))) == 2  # no projection

    @pytest.mark.parametrize("block", BLOCKS)
    def test_each_refuses_what_it_does_not_read(self, block):
        values = {"norm": "batch_norm", "kernel_size": 5, "separable": True, "eps": 1e-3, "depth": 2}
        for field, value in values.items():
            if field in BLOCKS[block].reads:
                assert getattr(Conv(block=block, **{field: value}), field) == value
            else:
                with pytest.raises(PyrafuseError, match=f"the block {block} has no {field}: leave it out; it has "):
                    Conv(block=block, **{field: value})


def test_each_level_of_each_graph_reads_what_the_paper_says():
    from pyrafuse.necks.registry import create_neck

    spec = PyramidSpec((8, 8, 8), (8, 16, 32))
    read = {
        name: {m.name: m.inputs for m in create_neck(name, spec, **options).graph.merges}
        for name, options in {
            "rep_gfpn": {"depth": 1},
            "afpn": {"depth": 1},
            "ccfm": {"depth": 1},
            "gather_distribute": {"depth": 1},
        }.items()
    }
    assert read["rep_gfpn"] == {
        "T5": ("C5", "C4"),
        "T4": ("C4", "C3", "T5"),
        "P3": ("C3", "T4"),
        "P4": ("T4", "P3"),
        "P5": ("T5", "T4", "P4"),
    }
    features = create_neck("rep_gfpn", spec, depth=1).features
    assert features.channels == (128, 256, 512)
    assert read["afpn"]["A4_2"] == ("S3", "S4")
    assert read["afpn"]["A5_3"] == read["afpn"]["A3_3"] == ("A3_2", "A4_2", "S5")
    assert (read["ccfm"]["A5"], read["ccfm"]["T4"], read["ccfm"]["P3"]) == (("S5",), ("S4", "L5"), ("S3", "L4"))
    assert (read["ccfm"]["P4"], read["ccfm"]["P5"]) == (("L4", "P3"), ("L5", "P4"))
    gold = read["gather_distribute"]
    assert (gold["low"], gold["T4"], gold["P3"]) == (("L3", "L4", "L5"), ("N4", "low"), ("N3", "low"))
    assert (gold["high"], gold["P4"], gold["P5"]) == (("P3", "T4", "L5"), ("H4", "refined"), ("H5", "refined"))
