"""Content-aware reassembly: every cell of the finer map is a weighted mean of the coarse cells around it.

Wang et al., "CARAFE", arXiv:1905.02188, section 3.2.
x -> 1x1 compressor -> encoder -> softmax over k x k cells, for each cell of the finer map -> weighted mean of x
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.layers.conv import ZeroConv2d, cut_to


def reassemble(x: Tensor, weights: Tensor) -> Tensor:
    """Cells (B, C, s * H, s * W) of x (B, C, H, W) and weights (B, k * k, s * s, H, W).

    Cell (s * i + a, s * j + b) is the sum of the k x k cells of x around (i, j), zeros past the border, each times its
    weight of number s * a + b. Each tap is a shifted view of one padded map, multiplied and added at once: x and the
    weights are all that is kept for the gradient.
    """
    taps, cells = weights.shape[1:3]
    side = round(taps**0.5)
    height, width = x.shape[2:]
    padded = F.pad(x, [side // 2] * 4)[:, :, None]
    total = None
    for tap in range(taps):
        down, across = divmod(tap, side)
        shifted = padded[..., down : down + height, across : across + width]
        weight = weights[:, None, tap]
        total = shifted * weight if total is None else torch.addcmul(total, shifted, weight)
    assert total is not None
    return F.pixel_shuffle(total.flatten(1, 2), round(cells**0.5))


class CARAFE(nn.Module):
    """x (B, C, H, W) -> (B, C, scale * H, scale * W), or as many of these cells as ``size`` wants.

    The encoder starts near zero, and so with nearly equal weights.

    Args:
        channels: Number of channels, C.
        scale: Number of cells that each cell becomes, down and across.
        compressed: Most channels that the weights are made of.
        kernel_size: Coarse cells a side that are averaged.
        encoder_size: Kernel size of the convolution that makes the weights.
    """

    def __init__(
        self, channels: int, scale: int, *, compressed: int = 64, kernel_size: int = 5, encoder_size: int = 3
    ) -> None:
        super().__init__()
        width = min(compressed, channels)
        self.compress = nn.Conv2d(channels, width, 1)
        self.encode = ZeroConv2d(width, kernel_size**2 * scale**2, encoder_size, padding=encoder_size // 2, spread=1e-3)
        self._shape = (kernel_size**2, scale**2)

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        weights = self.encode(self.compress(x)).unflatten(1, self._shape).softmax(dim=1)
        finer = reassemble(x, weights.to(x.dtype))
        return finer if size is None else cut_to(finer, size)
