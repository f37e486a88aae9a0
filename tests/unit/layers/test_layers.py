"""Small modules, worked by hand."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from pyrafuse.layers.conv import (
    ACTIVATIONS,
    ConvNormAct,
    ZeroConv2d,
    initialize,
    initialize_small,
    upsample_to,
)
from pyrafuse.layers.deformable import DeformableConv2d, FeatureAdaption
from pyrafuse.layers.dropblock import DropBlock, drop_rate
from pyrafuse.layers.rfb import RFB
from pyrafuse.layers.spp import YOLOSPP
from pyrafuse.layers.switchable_atrous import SwitchableAtrousConv


class TestConv:
    @pytest.mark.parametrize(("kernel_size", "stride", "cells"), [(1, 1, 7), (3, 1, 7), (5, 1, 7), (3, 2, 4)])
    def test_size(self, kernel_size, stride, cells):
        block = ConvNormAct(2, 3, kernel_size, stride=stride)
        assert block(torch.zeros(2, 2, 7, 7)).shape == (2, 3, cells, cells)

    def test_dilation_keeps_the_size_and_padding_does_not(self):
        assert ConvNormAct(2, 3, 3, dilation=4)(torch.zeros(2, 2, 7, 5)).shape == (2, 3, 7, 5)
        assert ConvNormAct(2, 3, 3, padding=0)(torch.zeros(2, 2, 7, 5)).shape == (2, 3, 5, 3)

    def test_bias_instead_of_norm(self):
        block = ConvNormAct(2, 2, 3, groups=2, norm=False, activation="relu")
        assert {key: tuple(v.shape) for key, v in block.state_dict().items()} == {
            "conv.weight": (2, 1, 3, 3),
            "conv.bias": (2,),
        }

    @pytest.mark.parametrize(
        ("name", "low", "high"), [("leaky_relu", -0.2, 8), ("relu", 0, 8), ("relu6", 0, 6), ("none", -2, 8)]
    )
    def test_activations(self, name, low, high):
        assert ACTIVATIONS[name]()(torch.tensor([-2.0, 8.0])).tolist() == pytest.approx([low, high])

    @pytest.mark.parametrize("fill", [initialize, initialize_small])
    def test_what_starts_at_zero_stays_there_when_its_module_is_filled(self, fill):
        block = nn.Sequential(
            ZeroConv2d(4, 2, 3, padding=1, start=0.5),
            DeformableConv2d(2, 3, modulated=True),
            SwitchableAtrousConv(3, 3, deform=True),
        )
        fill(block)
        x = torch.randn(1, 4, 5, 6)
        assert torch.equal(block[0](x), torch.full((1, 2, 5, 6), 0.5))
        _, deformable, switchable = block
        for conv in (deformable.offset, switchable.offset_near, switchable.offset_far, switchable.pre_context):
            assert not any(parameter.any() for parameter in conv.parameters())
        assert switchable.switch.bias.tolist() == [1]
        assert switchable.weight.any()

    def test_initialize(self):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(64, 200, 3), nn.BatchNorm2d(200))
        nn.init.constant_(block[1].weight, 7.0)
        initialize(block)
        assert float(block[0].weight.detach().std()) == pytest.approx((2 / (1 + 0.1**2) / (64 * 9)) ** 0.5, rel=0.02)
        assert not block[0].bias.any()
        assert (block[1].weight == 1).all()
        assert not block[1].bias.any()


class TestUpsampling:
    def test_doubles_by_repeating(self):
        x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        assert upsample_to(x, (4, 4))[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]

    def test_odd_sizes(self):
        assert upsample_to(torch.tensor([[[[1.0, 2.0]]]]), (1, 3))[0, 0].tolist() == [[1, 1, 2]]

    def test_equal_size_is_the_map_itself(self):
        x = torch.zeros(1, 1, 2, 3)
        assert upsample_to(x, (2, 3)) is x


def test_spp_is_the_map_and_its_three_pools():
    x = torch.randn(2, 3, 20, 17)
    pools = [nn.functional.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13)]
    assert torch.equal(YOLOSPP()(x), torch.cat((x, *pools), dim=1))


class TestRFB:
    def test_reach_of_the_branches(self):
        block = RFB(4)
        x = torch.zeros(1, 4, 21, 21, requires_grad=True)
        for branch, reach in zip(block.branches, (0, 1, 3, 5), strict=True):
            (gradient,) = torch.autograd.grad(branch(x)[0, 0, 10, 10], x)
            seen = gradient.abs().sum((0, 1)).nonzero()
            assert (seen - 10).abs().max() == reach

    def test_channels(self):
        with pytest.raises(ValueError, match="6 is no multiple of 4"):
            RFB(6)


class TestFeatureAdaption:
    def test_offsets_do_not_teach_the_guides(self):
        guides = torch.randn(1, 4, 3, 3, requires_grad=True)
        x = torch.randn(1, 6, 3, 3, requires_grad=True)
        FeatureAdaption(6, 2)(x, guides).sum().backward()
        assert guides.grad is None
        assert x.grad is not None

    def test_channels(self):
        with pytest.raises(ValueError, match="6 channels do not split into 4 groups"):
            FeatureAdaption(6, 4)


class TestDeformableConv2d:
    @pytest.mark.parametrize(
        ("dtype", "form"),
        [
            (torch.float16, "eager"),
            (torch.bfloat16, "eager"),
            (torch.bfloat16, "compiled"),
            (torch.bfloat16, "exported"),
        ],
    )
    @torch.no_grad()
    def test_half_precision(self, dtype, form):
        torch.manual_seed(0)
        block = DeformableConv2d(8, 4, modulated=True)
        nn.init.normal_(block.offset.bias)
        block, x = block.to(dtype), torch.randn(1, 8, 6, 90).to(dtype)
        expected = deepcopy(block).double()(x.double()).to(dtype)
        call = block
        if form == "compiled":
            call = torch.compile(block, fullgraph=True, backend="eager")
        elif form == "exported":
            call = torch.export.export(block, (x,)).module()
        torch.testing.assert_close(call(x), expected, rtol=0.05, atol=0.02)


class TestDropBlock:
    def test_off(self):
        x = torch.randn(1, 2, 8, 8)
        for block in (DropBlock(), DropBlock(3).eval(), DropBlock(3, keep_prob=1.0)):
            assert block(x) is x

    @pytest.mark.parametrize("block_size", [1, 3, 5])
    def test_keeps_the_share_and_the_mean(self, block_size):
        torch.manual_seed(0)
        x = torch.ones(16, 32, 20, 20)
        out = DropBlock(block_size, keep_prob=0.9)(x)
        assert float((out > 0).float().mean()) == pytest.approx(0.9, abs=0.04)
        assert float(out.mean()) == pytest.approx(1.0, rel=1e-4)

    def test_rate(self):
        assert drop_rate(10, block_size=1, keep_prob=0.9) == pytest.approx(0.1)
        assert drop_rate(10, block_size=3, keep_prob=0.9) == pytest.approx(0.1 * 100 / (9 * 64))

    def test_block_larger_than_the_map(self):
        out = DropBlock(7)(torch.ones(1, 1, 3, 3))
        assert out.isfinite().all()

    @pytest.mark.parametrize("block_size", [2, 6, -1, -2])
    def test_bad_block_sizes(self, block_size):
        with pytest.raises(ValueError, match=f"block_size must be odd and positive, or 0 to be off, got {block_size}"):
            DropBlock(block_size)
        block = DropBlock(3)
        with pytest.raises(ValueError, match="block_size must be odd"):
            block.block_size = block_size
        assert block.block_size == 3

    @pytest.mark.parametrize("keep_prob", [2, -0.5, 0, float("nan")])
    def test_bad_shares(self, keep_prob):
        with pytest.raises(ValueError, match=f"keep_prob must lie above 0 and up to 1, got {keep_prob}"):
            DropBlock(3, keep_prob=keep_prob)
        block = DropBlock(3)
        with pytest.raises(ValueError, match="keep_prob must lie above 0"):
            block.keep_prob = keep_prob
        assert block.keep_prob == 0.9
