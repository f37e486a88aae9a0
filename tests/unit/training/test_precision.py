import copy

import torch
from torch import nn

from pyrafuse.training.precision import StridedDepthwiseConv2d, spare_strided_depthwise


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
