"""Feature alignment and selection: coarse maps are moved to where the finer map has the same content.

Huang et al., "FaPN", arXiv:2108.07058, section 3.
coarse map -> nearest neighbours -> deformable convolution with offsets of both maps -> ReLU
"""

import math

import torch
from torch import Tensor, nn

from pyrafuse.layers.conv import ZeroConv2d, upsample_to
from pyrafuse.layers.deformable import DeformableConv3x3

MOST_GROUPS = 8


class AlignedUpsampling(nn.Module):
    """x (B, C, h, w) and guide (B, G, H, W) -> (B, C, H, W): x at the size of the guide, aligned to it.

    A 3x3 convolution of both maps gives the offsets and weights of the samples (arXiv:1811.11168) of a deformable 3x3
    convolution of x. They start at zero: no offset, and every sample with half its weight.

    Args:
        channels: C; its greatest common divisor with 8 is the number of deformable groups.
        guide_channels: Number of channels of the guide, G.
    """

    def __init__(self, channels: int, guide_channels: int) -> None:
        super().__init__()
        groups = math.gcd(channels, MOST_GROUPS)
        self.offset = ZeroConv2d(channels + guide_channels, 27 * groups, 3, padding=1)
        self.conv = DeformableConv3x3(channels, channels, bias=False)
        self._moves = 18 * groups

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.conv.weight.dtype
            x = upsample_to(x.to(dtype), guide.shape[2:])
            moves = self.offset(torch.cat((guide.to(dtype), x), dim=1))
            return self.conv(x, moves[:, : self._moves], moves[:, self._moves :].sigmoid()).relu()


class FeatureSelection(nn.Module):
    """x (B, C, H, W) -> x + x * weights of its channels, a sigmoid of a 1x1 convolution of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + x * self.weigh(x.mean(dim=(2, 3), keepdim=True)).sigmoid()
