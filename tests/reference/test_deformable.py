"""Deformable convolution through `grid_sample`, against torchvision's own kernels."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from pyrafuse.layers.deformable import DeformableConv2d, deformable_conv3x3


@pytest.mark.parametrize("reach", [0.0, 1.0, 6.0], ids=["plain", "near", "far outside"])
@pytest.mark.parametrize(
    ("batch", "channels", "out_channels", "groups", "height", "width"),
    [(2, 8, 6, 4, 7, 5), (1, 4, 3, 1, 1, 1), (3, 6, 4, 2, 2, 9), (1, 3, 5, 3, 4, 4)],
)
def test_equal_to_torchvision(batch, channels, out_channels, groups, height, width, reach):
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    offset = reach * random(batch, groups * 18, height, width)
    values = (
        random(batch, channels, height, width),
        offset,
        random(out_channels, channels, 3, 3),
        random(out_channels),
    )
    results = []
    for convolve in (deformable_conv3x3, lambda *v: deform_conv2d(*v, padding=1)):
        inputs = [v.clone().requires_grad_() for v in values]
        out = convolve(*inputs)
        # offsets of zero are a kink of bilinear sampling: each side has its own slope
        wanted = inputs if reach else [inputs[i] for i in (0, 2, 3)]
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        results.append((out, *torch.autograd.grad(out, wanted, cotangent)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_without_offsets_it_is_a_convolution():
    x = torch.arange(2 * 4 * 6 * 5, dtype=torch.float64).view(2, 4, 6, 5).sin()
    weight = torch.arange(3 * 4 * 9, dtype=torch.float64).view(3, 4, 3, 3).cos()
    got = deformable_conv3x3(x, x.new_zeros(2, 36, 6, 5), weight, None)
    torch.testing.assert_close(got, torch.nn.functional.conv2d(x, weight, padding=1))


def test_shifted_by_whole_cells_it_is_a_shifted_convolution():
    x = torch.arange(4 * 36, dtype=torch.float64).view(1, 4, 6, 6).sin()
    weight = torch.arange(2 * 4 * 9, dtype=torch.float64).view(2, 4, 3, 3).cos()
    offset = x.new_zeros(1, 18, 6, 6)
    offset[:, 0::2], offset[:, 1::2] = 1, 2  # one down, two to the right
    got = deformable_conv3x3(x, offset, weight, None)
    plain = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (1, 3, 1, 2)), weight)
    torch.testing.assert_close(got, plain[:, :, 1:, 2:])


def test_with_weights_of_the_samples_equal_to_torchvision():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5, 7), (2, 36, 5, 7), (3, 4, 3, 3), (3,), (2, 18, 5, 7))
    x, offset, weight, bias, mask = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    got = deformable_conv3x3(x, offset, weight, bias, mask)
    torch.testing.assert_close(got, deform_conv2d(x, offset, weight, bias, padding=1, mask=mask))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_fresh_one_is_a_convolution_and_modulated_half_of_it(stride):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 5)
    for is_modulated, share in ((False, 1.0), (True, 0.5)):
        block = DeformableConv2d(4, 6, stride=stride, modulated=is_modulated)
        plain = torch.nn.functional.conv2d(x, block.weight, stride=stride, padding=1)
        torch.testing.assert_close(block(x), share * plain)


def test_groups_that_do_not_split():
    with pytest.raises(ValueError, match="6 channels in and 4 out do not split into 4 groups and 1 deformable"):
        DeformableConv2d(6, 4, groups=4)
