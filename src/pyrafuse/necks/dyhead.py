"""Dynamic head: blocks of attention over scales, positions and channels, between a pyramid and the head.

Dai et al., "Dynamic Head: Unifying Object Detection Heads with Attentions", arXiv:2106.08322, section 3.
for each level: deformable convolutions of it and its neighbours, at its size -> each times its weight -> mean ->
dynamic ReLU; several times
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ZeroConv2d, initialize, initialize_small
from pyrafuse.layers.deformable import DeformableConv3x3
from pyrafuse.layers.dynamic_relu import DynamicReLU
from pyrafuse.necks.merging import add, interpolate_bilinearly
from pyrafuse.necks.registry import NECKS

MOST_GROUPS = 16
"""Groups of group norm; their number divides the channels."""


class Sampling(nn.Module):
    """Deformable 3x3 convolution at given places, then group norm: x, offsets and weights of the samples -> x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DeformableConv3x3(channels, channels, bias=False)
        self.norm = nn.GroupNorm(math.gcd(MOST_GROUPS, channels), channels)

    def forward(self, x: Tensor, moves: Tensor) -> Tensor:
        """(B, C, H, W) of x of that shape and ``moves`` (B, 27, H, W): 18 offsets, then 9 logits of weights."""
        x, norm = self.conv(x, moves[:, :18], moves[:, 18:].sigmoid()), self.norm
        # the module refuses one cell of one image, where a group still has several channels
        return torch.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


class DyHeadBlock(nn.Module):
    """One block, which all levels share: levels -> levels, of the same shapes.

    The paper takes all levels at one size. As in the published detectors, each level reads its neighbours alone, and
    its own map gives all offsets and weights. A finer neighbour is resized before it is sampled, a coarser one after.

    Args:
        channels: Channels of every level.
        num_levels: How many there are.
    """

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        self.moves = ZeroConv2d(channels, 27, 3, padding=1)
        self.own = Sampling(channels)
        self.finer = Sampling(channels) if num_levels > 1 else None
        self.coarser = Sampling(channels) if num_levels > 1 else None
        self.weigh = nn.Conv2d(channels, 1, 1)
        self.activation = DynamicReLU(channels)
        initialize(self.activation, slope=0)
        initialize_small(self.weigh)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(self._attend(pyramid, level) for level in range(len(pyramid)))

    def _attend(self, pyramid: Pyramid, level: int) -> Tensor:
        x = pyramid[level]
        size, moves = x.shape[2:], self.moves(x)
        sampled = [self.own(x, moves)]
        if self.finer is not None and level > 0:
            sampled.append(self.finer(interpolate_bilinearly(pyramid[level - 1], size), moves))
        if self.coarser is not None and level + 1 < len(pyramid):
            coarse = pyramid[level + 1]
            found = self.coarser(coarse, interpolate_bilinearly(moves, coarse.shape[2:]))
            sampled.append(interpolate_bilinearly(found, size))
        return self.activation(self._mean(sampled))

    def _mean(self, maps: Sequence[Tensor]) -> Tensor:
        """Mean of maps (B, C, H, W), each times the weight that its own mean gives it."""
        weighed = [x * ((self.weigh(x.mean(dim=(2, 3), keepdim=True)) + 1) / 2).clamp(0, 1) for x in maps]
        return add(*weighed) / len(weighed)


@NECKS.register("dyhead")
class DyHead(Neck):
    """Dynamic head's blocks, of the same levels as come in; they stand behind another neck: ``fpn+dyhead``.

    Args:
        inputs: Channels and strides of the input pyramid. The paper's levels have the same channels; where they
            differ, each passes a 1x1 convolution first.
        out_channels: Channels of every level; by default those of the finest that comes in.
        num_blocks: Number of blocks.

    Raises:
        ValueError: If there is no block.
    """

    def __init__(self, inputs: PyramidSpec, *, out_channels: int | None = None, num_blocks: int = 6) -> None:
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks must be 1 or more, got {num_blocks}")
        channels = inputs.channels[0] if out_channels is None else out_channels
        self.laterals = nn.ModuleList(
            nn.Identity() if before == channels else nn.Conv2d(before, channels, 1) for before in inputs.channels
        )
        initialize(self.laterals, slope=1)
        self.blocks = nn.ModuleList(DyHeadBlock(channels, len(inputs)) for _ in range(num_blocks))
        self.features = PyramidSpec(channels=(channels,) * len(inputs), strides=inputs.strides)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(pyramid[0].device.type, enabled=False):
            dtype = next(self.blocks.parameters()).dtype
            maps = tuple(lateral(x.to(dtype)) for lateral, x in zip(self.laterals, pyramid, strict=True))
            for block in self.blocks:
                maps = block(maps)
            return maps
