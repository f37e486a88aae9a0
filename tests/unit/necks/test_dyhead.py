"""Dynamic head's block, written out once more without offsets, and its activation by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.layers.dynamic_relu import DynamicReLU
from pyrafuse.necks.dyhead import DyHead, DyHeadBlock


class TestDynamicReLU:
    @torch.no_grad()
    def test_starts_as_relu(self):
        torch.manual_seed(0)
        x = torch.randn(2, 8, 5, 4)
        torch.testing.assert_close(DynamicReLU(8)(x), x.relu(), rtol=1e-2, atol=1e-2)

    @torch.no_grad()
    def test_by_loops(self):
        torch.manual_seed(0)
        activation = DynamicReLU(4, reduction=2).double()
        for parameter in activation.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(1, 4, 2, 3, dtype=torch.float64)
        hidden = (activation.squeeze.weight[:, :, 0, 0] @ x[0].mean(dim=(1, 2)) + activation.squeeze.bias).clamp(min=0)
        numbers = activation.expand.weight[:, :, 0, 0] @ hidden + activation.expand.bias
        shifted = 2 / (1 + (-numbers).exp()) - 1
        for channel in range(4):
            a1, a2, b1, b2 = (shifted[channel + 4 * part] for part in range(4))
            for value, found in zip(x[0, channel].flatten(), activation(x)[0, channel].flatten(), strict=True):
                expected = max((1 + a1) * value + 0.5 * b1, a2 * value + 0.5 * b2)
                torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_block_without_offsets():
    torch.manual_seed(0)
    block = DyHeadBlock(4, 3)
    pyramid = tuple(torch.randn(2, 4, *size) for size in ((8, 12), (4, 6), (2, 3)))
    nn.init.normal_(block.weigh.weight)

    def sample(branch, x):
        return branch.norm(F.conv2d(x, branch.conv.weight / 2, padding=1))  # every sample has half its weight

    def resize(x, like):
        return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

    expected = []
    for level, x in enumerate(pyramid):
        maps = [sample(block.own, x)]
        if level > 0:
            maps.append(sample(block.finer, resize(pyramid[level - 1], x)))
        if level < 2:
            maps.append(resize(sample(block.coarser, pyramid[level + 1]), x))
        total = torch.zeros_like(x)
        for found in maps:
            logits = (found.mean(dim=(2, 3)) * block.weigh.weight[0, :, 0, 0]).sum(dim=1) + block.weigh.bias
            weights = F.hardtanh((logits + 1) / 2, 0.0, 1.0)
            total += found * weights[:, None, None, None] / len(maps)
        expected.append(block.activation(total))
    for found, wanted in zip(block(pyramid), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_level_sees_as_far_as_the_number_of_blocks():
    torch.manual_seed(0)
    for num_blocks in (1, 2):
        neck = DyHead(PyramidSpec((4, 4, 4), (8, 16, 32)), num_blocks=num_blocks)
        pyramid = [torch.randn(1, 4, *size) for size in ((8, 8), (4, 4), (2, 2))]
        before = neck(tuple(pyramid))
        pyramid[2] = pyramid[2] + torch.randn(1, 4, 2, 2)
        after = neck(tuple(pyramid))
        assert [not torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [num_blocks == 2, True, True]


def test_one_level_has_no_neighbours_and_no_part_for_them():
    neck = DyHead(PyramidSpec((4,), (16,)), num_blocks=1)
    assert {name.split(".")[2] for name, _ in neck.named_parameters()} == {"moves", "own", "weigh", "activation"}


def test_no_block_is_refused():
    with pytest.raises(ValueError, match="num_blocks must be 1 or more, got 0"):
        DyHead(PyramidSpec((4,), (16,)), num_blocks=0)
