"""Blocks that look around: pooling of fixed length, atrous pyramids, non-local, standardised and switchable ones."""

import math

import pytest
import torch
from torch import nn

from pyrafuse.layers.aspp import ASPP, FeedbackASPP
from pyrafuse.layers.deformable import DeformableConv2d
from pyrafuse.layers.l2_norm import L2Norm
from pyrafuse.layers.non_local import NonLocal
from pyrafuse.layers.spp import YOLOSPP, SpatialPyramidPooling
from pyrafuse.layers.switchable_atrous import SwitchableAtrousConv
from pyrafuse.layers.weight_standardization import ConvAWS, standardize_weights


class TestSpatialPyramidPooling:
    def test_by_hand(self):
        x = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[9.0, 8.0, 7.0], [6.0, 5.0, 4.0]]]])
        out = SpatialPyramidPooling((1, 2))(x)
        # of two bins over three cells each has two, and they share the middle one
        assert out.tolist() == [[6, 9, 2, 3, 5, 6, 9, 8, 6, 5]]
        assert SpatialPyramidPooling((2,), mode="average")(x)[0, :4].tolist() == [1.5, 2.5, 4.5, 5.5]

    @pytest.mark.parametrize("mode", ["max", "average"])
    @pytest.mark.parametrize("size", range(1, 65))
    def test_every_size(self, size, mode):
        other = 65 - size
        x = torch.randn(1, 2, size, other, generator=torch.Generator().manual_seed(size))
        levels = (1, 2, 3, 4, 6)
        out = SpatialPyramidPooling(levels, mode=mode)(x)
        assert out.shape == (1, 2 * (1 + 4 + 9 + 16 + 36))
        expected = []
        for n in levels:
            rows = [(i * size // n, math.ceil((i + 1) * size / n)) for i in range(n)]
            columns = [(i * other // n, math.ceil((i + 1) * other / n)) for i in range(n)]
            for channel in x[0]:
                bins = [channel[a:b, c:d] for a, b in rows for c, d in columns]
                expected += [b.amax() if mode == "max" else b.mean() for b in bins]
        torch.testing.assert_close(out[0], torch.stack(expected))

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match=r"levels of 1 x 1 bins or more, got \(2, 0\)"):
            SpatialPyramidPooling((2, 0))
        with pytest.raises(ValueError, match="unknown mode 'mean'"):
            SpatialPyramidPooling(mode="mean")


class TestYOLOSPP:
    @pytest.mark.parametrize("windows", [(5, 9, 13), (3,), (3, 9)])
    def test_row_of_pools_is_pools_beside_each_other(self, windows):
        x = torch.randn(2, 3, 20, 17)
        pools = [nn.functional.max_pool2d(x, k, stride=1, padding=k // 2) for k in windows]
        assert torch.equal(YOLOSPP(windows)(x), torch.cat((x, *pools), dim=1))

    @pytest.mark.parametrize("windows", [(), (4,), (5, 5), (9, 5), (1,)])
    def test_bad_windows(self, windows):
        with pytest.raises(ValueError, match="odd, above 1 and growing"):
            YOLOSPP(windows)


class TestASPP:
    @pytest.mark.parametrize("size", [(1, 1), (2, 9), (33, 7)])
    @torch.no_grad()
    def test_keeps_the_size(self, size):
        assert ASPP(4, 6).eval()(torch.randn(2, 4, *size)).shape == (2, 6, *size)
        assert FeedbackASPP(8)(torch.randn(2, 8, *size)).shape == (2, 8, *size)

    def test_far_rates_see_the_centre_alone(self):
        block = ASPP(2, 3, rates=(40,)).eval()
        x = torch.randn(1, 2, 9, 9)
        centre = nn.functional.conv2d(x, block.branches[1].conv.weight[:, :, 1:2, 1:2])
        torch.testing.assert_close(block.branches[1].conv(x), centre)

    def test_feedback_form(self):
        block = FeedbackASPP(8, 3, dilations=(1, 2, 1))
        kernels = [tuple(part.conv.kernel_size) for part in block.branches]
        assert kernels == [(1, 1), (3, 3), (1, 1)]
        assert block.out_channels == 9
        x = torch.randn(2, 8, 4, 5)
        whole = block(x)[:, 6:]
        assert torch.equal(whole, whole[:, :, :1, :1].expand_as(whole))
        torch.testing.assert_close(whole[:, :, 0, 0], block.branches[2](x.mean((2, 3), keepdim=True))[:, :, 0, 0])


class TestNonLocal:
    @pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product"])
    @pytest.mark.parametrize("reduction", [1, 2])
    def test_against_loops(self, mode, reduction):
        torch.manual_seed(0)
        block = NonLocal(4, reduction=reduction, mode=mode).double()
        for parameter in block.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(2, 4, 3, 2, dtype=torch.float64)
        got = block(x)
        queries, keys, values = block.query(x), block.key(x), block.value(x)
        cells = [(i, j) for i in range(3) for j in range(2)]
        for b in range(2):
            for i, j in cells:
                likeness = torch.stack([queries[b, :, i, j] @ keys[b, :, k, m] for k, m in cells])
                weights = likeness.softmax(0) if mode == "embedded_gaussian" else likeness / len(cells)
                found = sum(w * values[b, :, k, m] for w, (k, m) in zip(weights, cells, strict=True))
                expected = x[b, :, i, j] + block.out.weight[:, :, 0, 0] @ found + block.out.bias
                torch.testing.assert_close(got[b, :, i, j], expected)

    @pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product"])
    @torch.no_grad()
    def test_half_precision(self, mode):
        # the sum over the cells, and with larger values a logit, are beyond 65504
        torch.manual_seed(0)
        block = NonLocal(16, mode=mode)
        for parameter in block.parameters():
            nn.init.constant_(parameter, 0.25 if parameter.ndim > 1 else 0)
        x = (torch.randn(1, 16, 32, 32) * (6 if mode == "dot_product" else 60) + 2).half()
        found = block.half()(x).double() - x
        expected = block.double()(x.double()) - x
        assert (found - expected).norm() < 2e-3 * expected.norm()

    def test_starts_near_the_identity(self):
        x = torch.randn(1, 16, 5, 5)
        assert (NonLocal(16)(x) - x).norm() < 0.01 * x.norm()

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match=r"must lie in 1\.\.4, got 8"):
            NonLocal(4, reduction=8)
        with pytest.raises(ValueError, match="unknown mode 'gauss'"):
            NonLocal(4, mode="gauss")


class TestL2Norm:
    def test_by_hand(self):
        x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
        assert L2Norm(2, scale=10)(x).flatten().tolist() == pytest.approx([6, 8])

    def test_nothing_and_half_precision(self):
        x = torch.zeros(1, 2, 1, 1, requires_grad=True)
        L2Norm(2)(x).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        big = torch.full((1, 4, 1, 1), 1000.0, dtype=torch.float16)
        assert L2Norm(4, scale=20)(big).flatten().tolist() == [10.0] * 4


class TestConvAWS:
    def test_by_hand(self):
        conv = ConvAWS(1, 1, (1, 2), bias=False)
        conv.load_state_dict(
            {
                "weight": torch.tensor([[[[1.0, 3.0]]]]),
                "weight_gamma": torch.full((1, 1, 1, 1), 5.0),
                "weight_beta": torch.full((1, 1, 1, 1), 7.0),
            }
        )
        # mean 2, unbiased variance 2
        assert conv.standardized_weight().flatten().tolist() == pytest.approx(
            [7 - 5 / 2**0.5, 7 + 5 / 2**0.5], rel=1e-5
        )
        x = torch.tensor([[[[1.0, 10.0]]]])
        assert conv(x).item() == pytest.approx(77 + 45 / 2**0.5, rel=1e-5)

    def test_fresh_and_loaded_without_gamma_it_convolves_with_its_weight(self):
        torch.manual_seed(0)
        plain, conv = nn.Conv2d(3, 5, 3, stride=2), ConvAWS(3, 5, 3, stride=2)
        x = torch.randn(2, 3, 8, 8)
        torch.testing.assert_close(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, stride=2))
        conv.load_state_dict(plain.state_dict())
        torch.testing.assert_close(conv(x), plain(x))

    def test_a_gamma_that_is_not_positive_is_taken_anew(self):
        conv = ConvAWS(2, 2, 3)
        state = {**conv.state_dict(), "weight_gamma": torch.full((2, 1, 1, 1), -1.0)}
        conv.load_state_dict(state)
        assert (conv.weight_gamma > 0).all()
        torch.testing.assert_close(conv.standardized_weight(), conv.weight)

    def test_a_missing_weight_is_still_missed(self):
        with pytest.raises(RuntimeError, match=r'Missing key.*"bias"'):
            ConvAWS(1, 1, 3).load_state_dict({"weight": torch.zeros(1, 1, 3, 3)})

    def test_whole_models_keep_their_function(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1, groups=4)))
        model[1][1].weight.requires_grad_(requires_grad=False)
        x = torch.randn(1, 3, 6, 6)
        before = model(x)
        standardize_weights(model)
        assert isinstance(model[0], ConvAWS)
        assert isinstance(model[1][1], ConvAWS)
        assert not model[1][1].weight.requires_grad
        torch.testing.assert_close(model(x), before)


class TestSwitchableAtrousConv:
    @pytest.mark.parametrize("deform", [False, True])
    @pytest.mark.parametrize(("stride", "size"), [(1, (7, 9)), (2, (7, 9)), (1, (1, 2))])
    def test_a_fresh_one_is_a_convolution(self, deform, stride, size):
        torch.manual_seed(0)
        block = SwitchableAtrousConv(4, 6, stride=stride, deform=deform)
        x = torch.randn(2, 4, *size)
        expected = nn.functional.conv2d(x, block.weight, stride=stride, padding=1)
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @torch.no_grad()
    def test_half_precision(self, dtype):
        torch.manual_seed(0)
        for block in (SwitchableAtrousConv(4, 4, deform=True), DeformableConv2d(4, 4, stride=2, modulated=True)):
            x = torch.randn(1, 4, 6, 6)
            exact, rough = block(x), block.to(dtype)(x.to(dtype))
            assert rough.dtype == dtype
            assert (rough.float() - exact).norm() < 0.02 * exact.norm()

    def test_the_switch(self):
        torch.manual_seed(0)
        block = SwitchableAtrousConv(2, 3)
        nn.init.constant_(block.switch.bias, 0.25)
        nn.init.normal_(block.weight_diff)
        x = torch.randn(1, 2, 9, 9)
        near = nn.functional.conv2d(x, block.weight, padding=1)
        far = nn.functional.conv2d(x, block.weight + block.weight_diff, padding=3, dilation=3)
        torch.testing.assert_close(block(x), 0.25 * near + 0.75 * far, rtol=1e-4, atol=1e-5)
