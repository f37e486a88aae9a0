"""Blocks and small necks, against what mmdetection, mmcv and torchvision computed."""

import re

import pytest
import torch

from pyrafuse.importers.renaming import by_patterns, load_renamed
from pyrafuse.layers.aspp import ASPP
from pyrafuse.layers.deformable import DeformableConv2d
from pyrafuse.layers.spp import SpatialPyramidPooling
from pyrafuse.layers.switchable_atrous import SwitchableAtrousConv
from pyrafuse.layers.weight_standardization import ConvAWS

name_sac = by_patterns([(r"^offset_near\.", "offset_s."), (r"^offset_far\.", "offset_l.")])
"""Of a `SwitchableAtrousConv`."""


def name_aspp(key: str, *, num_rates: int = 3) -> str:
    """Of an `ASPP`: torchvision numbers its branches, the 1x1 first, the global mean last."""
    places = {"conv": 0, "norm": 1}
    if found := re.fullmatch(r"(branches\.(\d+)|whole|project)\.(conv|norm)\.(\w+)", key):
        part, branch, place, rest = found.groups()
        if part == "project":
            return f"project.{places[place]}.{rest}"
        if part == "whole":
            return f"convs.{num_rates + 1}.{places[place] + 1}.{rest}"  # a pooling layer comes first in its branch
        return f"convs.{branch}.{places[place]}.{rest}"
    raise LookupError(f"{key!r} is no key of an ASPP")


RTOL = 3e-6


@pytest.mark.parametrize("form", ["s1", "s2", "d2", "g2", "dg2"])
@pytest.mark.parametrize("version", ["DCN", "DCNv2"])
def test_deformable_convolution(vectors, version, form):
    golden, case = vectors.npz("mmdet/ops.npz"), vectors.json("mmdet/ops.json")[f"{version}_{form}"]
    shapes = dict(case["manifest"])
    arguments = dict(case["args"])
    arguments["deformable_groups"] = arguments.pop("deform_groups", 1)
    block = DeformableConv2d(8, 12, bias="bias" in shapes, modulated=version == "DCNv2", **arguments)
    state = vectors.state(case["manifest"])
    block.load_state_dict({key.replace("conv_offset", "offset"): value for key, value in state.items()})
    x = vectors.image(case["input"]).requires_grad_()

    name = f"{version}_{form}"
    assert vectors.error(golden, f"{name}.offset", block.offset(x)) < RTOL
    out = block(x)
    assert vectors.error(golden, f"{name}.out", out) < RTOL
    out.sum().backward()
    assert block.offset.weight.grad is not None
    gradients = {"grad_x": x.grad, "grad_w": block.weight.grad, "grad_off_w": block.offset.weight.grad}
    for what, gradient in gradients.items():
        assert vectors.error(golden, f"{name}.{what}", gradient) < 1e-5


def test_standardised_weights_keep_what_was_loaded(vectors):
    golden = vectors.npz("mmdet/rfp_sac.npz")
    block = ConvAWS(6, 8, 3, padding=1)
    block.load_state_dict(vectors.state([("weight", (8, 6, 3, 3)), ("bias", (8,))]))
    assert vectors.error(golden, "convaws_reset.gamma", block.weight_gamma) < RTOL
    assert vectors.error(golden, "convaws_reset.beta", block.weight_beta) < RTOL
    assert vectors.error(golden, "convaws_reset.effective_weight", block.standardized_weight()) < RTOL
    assert vectors.error(golden, "convaws_reset.out", block(vectors.image("image(52,(1,6,9,11))"))) < RTOL


@torch.no_grad()
@pytest.mark.parametrize("deform", [0, 1])
def test_switchable_atrous_convolution(vectors, deform):
    name = f"sac_deform{deform}"
    case = vectors.json("mmdet/rfp_sac.json")[name]
    block = SwitchableAtrousConv(8, 8, deform=bool(deform))
    state = vectors.state(case["manifest"], case["gains"])
    load_renamed(block, state, name_sac, source=name, layout="SAC")
    out = block(vectors.image(case["input"]))
    assert vectors.error(vectors.npz("mmdet/rfp_sac.npz"), f"{name}.out", out) < RTOL


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["aspp_12-24-36_i64_o32_33x33", "aspp_6-12-18_i64_o32_33x33", "aspp_2-4-6_i16_o8_17x23"]
)
def test_aspp(vectors, name):
    golden, case = vectors.npz("misc/torchvision.npz"), vectors.json("misc/index_torchvision.json")[name]
    block = ASPP(case["in_channels"], case["out_channels"], rates=case["rates"]).eval()
    state = vectors.state(vectors.json(f"misc/manifest_{name}.json"), case["gain"])
    load_renamed(block, state, name_aspp, source=name, layout="ASPP")
    x = vectors.image(case["input"])
    for i, branch in enumerate(block.branches):
        assert vectors.error(golden, f"{name}/branch{i}", branch(x)) < RTOL
    whole = block.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
    assert vectors.error(golden, f"{name}/branch{len(block.branches)}", whole) < RTOL
    assert vectors.error(golden, f"{name}/out", block(x)) < RTOL


@pytest.mark.parametrize("shape", ["2x8x13x13", "2x16x24x17", "1x4x7x7", "1x4x3x5", "1x6x32x32"])
@pytest.mark.parametrize(("mode", "key"), [("max", "max"), ("average", "avg")])
def test_spatial_pyramid_pooling(vectors, shape, mode, key):
    x = vectors.image(f"image(0,({shape.replace('x', ',')}))")
    pooled = SpatialPyramidPooling((1, 2, 4), mode=mode)(x)
    assert vectors.error(vectors.npz("misc/torchvision.npz"), f"spp_{shape}/{key}", pooled) < RTOL
