"""ECA and SE, worked by hand."""

import math

import pytest
import torch

from pyrafuse.layers.eca import ECA, eca_kernel_size
from pyrafuse.layers.se import SE


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class TestECA:
    @pytest.mark.parametrize(
        ("channels", "size"),
        [(1, 1), (7, 1), (8, 3), (64, 3), (127, 3), (128, 5), (512, 5), (2047, 5), (2048, 7)],
    )
    def test_kernel_size(self, channels, size):
        assert eca_kernel_size(channels) == size
        assert ECA(channels).conv.weight.shape == (1, 1, size)

    def test_kernel_size_with_other_constants(self):
        assert eca_kernel_size(256, gamma=1, b=0) == 9
        assert eca_kernel_size(256, gamma=-2, b=1) == 5

    @pytest.mark.parametrize(("padding", "first"), [("zeros", 2 * 1 + 3 * 4), ("circular", 1 * 7 + 2 * 1 + 3 * 4)])
    def test_gate(self, padding, first):
        layer = ECA(3, kernel_size=3, padding=padding)
        layer.conv.weight.data = torch.tensor([[[1.0, 2.0, 3.0]]]) / 10
        x = torch.tensor([1.0, 4.0, 7.0])[None, :, None, None] + torch.tensor([[-1.0, 1.0]])  # means 1, 4, 7
        last = 1 * 4 + 2 * 7 + (3 * 1 if padding == "circular" else 0)
        expected = [sigmoid(first / 10), sigmoid((1 * 1 + 2 * 4 + 3 * 7) / 10), sigmoid(last / 10)]
        assert layer.gate(x).shape == (1, 3, 1, 1)
        assert layer.gate(x).flatten().tolist() == pytest.approx(expected, rel=1e-6)
        assert torch.equal(layer(x), x * layer.gate(x))

    @pytest.mark.parametrize("kernel_size", [0, 2, -3])
    def test_even_kernels_are_refused(self, kernel_size):
        with pytest.raises(ValueError, match=f"odd and positive, got {kernel_size}"):
            ECA(8, kernel_size=kernel_size)

    def test_unknown_padding(self):
        with pytest.raises(ValueError, match="unknown padding 'reflect' of ECA; choose from zeros, circular"):
            ECA(16, padding="reflect")

    def test_no_channels(self):
        with pytest.raises(ValueError, match="channels >= 1"):
            eca_kernel_size(0)


class TestSE:
    def test_gate(self):
        layer = SE(2, reduction=2)
        layer.squeeze.weight.data = torch.tensor([1.0, -0.5]).view(1, 2, 1, 1)
        layer.squeeze.bias.data = torch.tensor([0.25])
        layer.excite.weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
        layer.excite.bias.data = torch.tensor([0.0, 0.5])
        x = torch.tensor([[[[0.0, 2.0]], [[1.0, 1.0]]]])  # means 1, 1: squeezed to 0.75
        assert layer.gate(x).flatten().tolist() == pytest.approx([sigmoid(1.5), sigmoid(-0.25)], rel=1e-6)
        assert layer(x)[0, :, 0].tolist() == [
            pytest.approx([0, 2 * sigmoid(1.5)]),
            pytest.approx([sigmoid(-0.25)] * 2),
        ]
        assert (layer.gate(torch.zeros(1, 2, 1, 1) - torch.tensor([9.0, 0.0]).view(1, 2, 1, 1)) < 1).all()

    def test_at_least_one_channel_is_left(self):
        assert SE(8).squeeze.out_channels == 1

    def test_reduction_by_nothing(self):
        with pytest.raises(ValueError, match="got 0"):
            SE(8, reduction=0)
