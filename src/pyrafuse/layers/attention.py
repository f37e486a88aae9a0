"""A transformer's encoder layer over the cells of a map.

Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3; over a detector's coarsest map as in RT-DETR,
arXiv:2304.08069, section 4.2.
cells -> + attention to all cells, by content and position -> norm -> + two layers -> norm
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_HEADS = 8


def encode_positions(height: int, width: int, channels: int, *, device: torch.device) -> Tensor:
    """Sines and cosines (H * W, C) of columns, then of rows, a quarter of the channels each.

    Wavelengths grow from 2 pi cells to 10000 times as many.
    """
    quarter = -(-channels // 4)
    rates = 10000 ** -(torch.arange(quarter, device=device) / quarter)
    down, across = (torch.arange(side, device=device)[:, None] * rates for side in (height, width))
    down, across = (torch.cat((angles.sin(), angles.cos()), dim=1) for angles in (down, across))
    grid = torch.cat((across.expand(height, -1, -1), down[:, None].expand(-1, width, -1)), dim=2)
    return grid.flatten(0, 1)[:, :channels]


class EncoderLayer(nn.Module):
    """x (B, C, H, W) -> (B, C, H, W); memory is that of H * W cells where torch's fused kernels run.

    Norms stand behind each sum, as in the paper. Queries and keys have no bias, that of the keys having no effect.

    Args:
        channels: C; its greatest common divisor with 8 is the number of heads.
        expansion: Times as many channels between the two layers.
    """

    def __init__(self, channels: int, *, expansion: int = 4) -> None:
        super().__init__()
        self.query_key = nn.Linear(channels, 2 * channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Sequential(
            nn.Linear(channels, expansion * channels), nn.GELU(), nn.Linear(expansion * channels, channels)
        )
        self.mix_norm = nn.LayerNorm(channels)
        self._num_heads = math.gcd(MOST_HEADS, channels)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        cells = x.flatten(2).transpose(1, 2)
        placed = cells + encode_positions(height, width, channels, device=x.device).to(cells.dtype)
        query, key, value = (
            part.unflatten(2, (self._num_heads, -1)).transpose(1, 2)
            for part in (*self.query_key(placed).chunk(2, dim=2), self.value(cells))
        )
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        cells = self.norm(cells + self.out(found))
        cells = self.mix_norm(cells + self.mix(cells))
        return cells.transpose(1, 2).unflatten(2, (height, width))
