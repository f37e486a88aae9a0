"""The ways from level to level and the fusions, on numbers that can be followed."""

import pytest
import torch
import torch.nn.functional as F

from pyrafuse.layers.fusion_weights import FusionWeights
from pyrafuse.necks.convolving import Conv, Convolution, create_block
from pyrafuse.necks.merging import (
    DOWN,
    UP,
    Edge,
    FloorMaxPool,
    SameMaxPool,
    WeightedSum,
    attend_globally,
    max_pool_to,
)


def ramp(height, width):
    return torch.arange(float(height * width)).view(1, 1, height, width)


class TestPools:
    def test_same_padding_of_even_and_odd_sides(self):
        assert SameMaxPool()(ramp(4, 4)).tolist() == [[[[10, 11], [14, 15]]]]
        assert SameMaxPool()(ramp(3, 4)).tolist() == [[[[6, 7], [10, 11]]]]
        assert SameMaxPool()(-ramp(1, 1) - 5).tolist() == [[[[-5]]]]  # padding is never the greatest

    @pytest.mark.parametrize("side", range(1, 9))
    def test_same_padding_gives_the_rounded_up_half(self, side):
        x = -1 - torch.rand(1, 1, side, 2)
        before = side % 2
        padded = F.pad(x, (0, 1, before, 1), value=-9)
        assert torch.equal(SameMaxPool()(x), F.max_pool2d(padded, 3, 2))
        assert SameMaxPool()(x).shape[2] == -(-side // 2)

    def test_floor(self):
        assert FloorMaxPool()(ramp(3, 5)).tolist() == [[[[6, 8]]]]
        assert FloorMaxPool()(ramp(1, 4)).tolist() == [[[[1, 3]]]]

    def test_to_a_size_that_divides(self):
        assert max_pool_to(ramp(4, 6), (2, 2)).tolist() == [[[[8, 11], [20, 23]]]]

    def test_to_a_size_that_does_not(self):
        # 5 rows to 2: windows of 3, one row of zeros below; 4 columns to 3: windows of 2, one of zeros at each side
        pooled = max_pool_to(ramp(5, 4) - 30, (2, 3))
        assert pooled.tolist() == [[[[0, -20, 0], [0, 0, 0]]]]
        assert max_pool_to(ramp(5, 4), (2, 3)).tolist() == [[[[8, 10, 11], [16, 18, 19]]]]


class TestEdge:
    @pytest.mark.parametrize("down", DOWN)
    @pytest.mark.parametrize("halvings", [1, 2, 3])
    def test_every_way_down_arrives(self, down, halvings):
        edge = Edge((3, 5), (3, 3 + halvings), up="nearest", down=down, project=Conv(1, norm="batch_norm"))
        size = [-(-13 // 2**halvings), -(-22 // 2**halvings)]
        assert edge(torch.randn(2, 3, 13, 22), size).shape == (2, 5, *size)

    @pytest.mark.parametrize("up", UP)
    @pytest.mark.parametrize("doublings", [1, 2, 3])
    @pytest.mark.parametrize("sides", [(3, 4), (1, 1)])
    def test_every_way_up_arrives(self, up, doublings, sides):
        edge = Edge((3, 5), (3 + doublings, 3), up=up, down="max_pool", project=Conv(1), guide_channels=2)
        x = torch.randn(2, 3, *sides)
        for missing in (0, 1, -1):  # a backbone may round down, and then the finer map is longer
            size = [side * 2**doublings - missing for side in sides]
            assert edge(x, size, (torch.randn(2, 2, *size),)).shape == (2, 5, *size)

    def test_subsampling_takes_every_second_cell(self):
        edge = Edge((1, 1), (3, 5), up="nearest", down="subsample", project=Conv(1))
        x = ramp(9, 6)
        assert torch.equal(edge(x, None), x[..., ::4, ::4])

    @pytest.mark.parametrize("up", ["nearest", "bilinear"])
    def test_interpolation(self, up):
        edge = Edge((2, 2), (5, 3), up=up, down="max_pool", project=Conv(1))
        x = torch.randn(1, 2, 3, 4)
        kwargs = {"align_corners": False} if up == "bilinear" else {}
        assert torch.equal(edge(x, (11, 14)), F.interpolate(x, size=(11, 14), mode=up, **kwargs))
        assert edge(x, None).shape == (1, 2, 12, 16)

    def test_bilinear_down_reads_the_nearest_cells_alone(self):
        edge = Edge((1, 1), (3, 5), up="nearest", down="bilinear", project=Conv(1))
        # the middle of four by four cells is between those of the second and third row and column
        assert edge(ramp(8, 8), None).tolist() == [[[[13.5, 17.5], [45.5, 49.5]]]]

    def test_idle(self):
        assert Edge((2, 2), (3, 3), up="nearest", down="conv", project=Conv(1)).is_idle
        assert not Edge((2, 3), (3, 3), up="nearest", down="conv", project=Conv(1)).is_idle
        assert not Edge((2, 2), (3, 4), up="nearest", down="max_pool_to_size", project=Conv(1)).is_idle
        assert not Edge((2, 2), (4, 3), up="nearest", down="conv", project=Conv(1)).is_idle


class TestFusions:
    def test_fast_normalized(self):
        fusion = WeightedSum(FusionWeights("P4", ("a", "b", "c"), stride=16), is_fast=True)
        fusion.edge_weights.data = torch.tensor([1.0, -2.0, 3.0])
        out = fusion(*(torch.full((1, 1, 1, 1), float(v)) for v in (10, 100, 1000)))
        assert out.item() == pytest.approx((1 * 10 + 3 * 1000) / 4.0001)

    def test_nothing_wanted(self):
        fusion = WeightedSum(FusionWeights("P4", ("a", "b"), stride=16), is_fast=True)
        fusion.edge_weights.data = torch.tensor([-1.0, -2.0])
        assert fusion(*[torch.ones(1, 1, 1, 1)] * 2).item() == 0

    def test_softmax(self):
        fusion = WeightedSum(FusionWeights("P4", ("a", "b"), stride=16), is_fast=False)
        fusion.edge_weights.data = torch.tensor([0.0, 3.0]).exp().log()
        weight = 1 / (1 + torch.tensor(3.0).exp().item())
        out = fusion(torch.full((1, 1, 1, 1), 1.0), torch.zeros(1, 1, 1, 1))
        assert out.item() == pytest.approx(weight)

    def test_weights_can_be_watched(self):
        fusion = WeightedSum(FusionWeights("P4", ("a", "b"), stride=16), is_fast=False)
        (watched,) = (part for part in fusion.modules() if isinstance(part, FusionWeights))
        assert (watched.output, watched.sources) == ("P4", ("a", "b"))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_stays(self, dtype):
        fusion = WeightedSum(FusionWeights("P4", ("a", "b"), stride=16), is_fast=True)
        assert fusion(*[torch.ones(1, 1, 2, 2, dtype=dtype)] * 2).dtype == dtype

    def test_global_attention(self):
        first, second = torch.full((1, 1, 1, 2), 10.0), torch.tensor([[[[-1.0, 1.0]]]])
        assert attend_globally(first, second).tolist() == [[[[4, 6]]]]  # the mean is 0, its sigmoid a half


class TestConvolution:
    def test_order(self):
        form = Conv(1, before="relu", norm="batch_norm", activation="silu", bias=True, eps=1e-3, momentum=0.01)
        module = Convolution(2, 3, form)
        assert [name for name, _ in module.named_children()] == ["before", "conv", "norm", "activation"]
        assert (module.norm.eps, module.norm.momentum) == (1e-3, 0.01)
        assert module.conv.bias is not None

    def test_bias_by_default_where_no_norm_is(self):
        assert Convolution(2, 3, Conv()).conv.bias is not None
        assert Convolution(2, 3, Conv(norm="batch_norm")).conv.bias is None
        assert Convolution(2, 32, Conv(norm="group_norm")).norm.num_groups == 32

    def test_separable(self):
        module = Convolution(4, 6, Conv(5, separable=True))
        assert module.depthwise.weight.shape == (4, 1, 5, 5)
        assert module.depthwise.bias is None
        assert module.conv.weight.shape == (6, 4, 1, 1)

    def test_what_comes_in_is_left_alone(self):
        x = -torch.ones(1, 2, 2, 2)
        Convolution(2, 2, Conv(before="relu"))(x)
        assert (x == -1).all()

    def test_selection_weighs_channels_before_the_convolution(self):
        module = create_block(2, 3, Conv(1, block="selection", norm="batch_norm", activation="relu"))
        assert [name for name, _ in module.named_children()] == ["select", "conv", "norm", "activation"]
        torch.nn.init.zeros_(module.select.weigh.weight)
        module.select.weigh.bias.data = torch.tensor([0.0, -100.0])  # the first by a half more, the other as it is
        assert torch.equal(module.select(torch.ones(1, 2, 1, 1)).flatten(), torch.tensor([1.5, 1.0]))
