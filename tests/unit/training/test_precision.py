import copy

import pytest
import torch
from torch import nn

from pyrafuse.training.precision import (
    SmallMapConv2d,
    StridedDepthwiseConv2d,
    spare_small_maps,
    spare_strided_depthwise,
)


def test_a_strided_depthwise_convolution_is_computed_in_float32():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
    x = torch.randn(2, 6, 9, 9).bfloat16().requires_grad_()
    expected = conv(x.float()).to(torch.bfloat16)
    spared = nn.Sequential(copy.deepcopy(conv))
    spare_strided_depthwise(spared)
    with torch.autocast("cpu", torch.bfloat16):
        output = spared(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    output.float().square().sum().backward()
    assert x.grad is not None
    assert spared[0].weight.grad is not None


def test_only_strided_depthwise_convolutions_change_and_names_stay():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(8, 8, 3, 2, groups=8))
    names = list(model.state_dict())
    spare_strided_depthwise(model)
    assert [isinstance(part, StridedDepthwiseConv2d) for part in model] == [False, False, True]
    assert list(model.state_dict()) == names
    assert isinstance(copy.deepcopy(model)[2], StridedDepthwiseConv2d)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (5, 1)])
@pytest.mark.parametrize("kernel", [3, 7])
def test_taps_that_see_padding_alone_have_a_gradient_of_zero(size, kernel):
    """bfloat16's kernels leave it as it lay in memory; NaN is put there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, kernel, stride=2, padding=kernel // 2))
    spare_small_maps(model)
    assert isinstance(model[0], SmallMapConv2d)
    x = torch.randn(4, 64, *size)
    model(x).sum().backward()
    expected = model[0].weight.grad.clone()
    for _ in range(4):
        model.zero_grad()
        litter = [torch.full((64, 64, kernel, kernel), torch.nan, dtype=torch.bfloat16) for _ in range(4)]
        del litter
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        output.float().sum().backward()
        torch.testing.assert_close(model[0].weight.grad, expected)


def test_maps_as_large_as_the_kernel_stay_in_half_precision():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
    spare_small_maps(model)
    assert [type(part) for part in model] == [SmallMapConv2d, nn.Conv2d]
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0](torch.randn(1, 4, 3, 3)).dtype == torch.bfloat16
        assert model[0](torch.randn(1, 4, 3, 2)).dtype == torch.float32
