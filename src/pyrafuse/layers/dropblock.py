"""DropBlock: drop-out of whole squares, so that neighbours cannot give the dropped value away.

Ghiasi et al., arXiv:1810.12890; each channel has its own mask, as in ASFF* (arXiv:1911.09516).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DropBlock(nn.Module):
    """Zero squares of ``block_size`` cells in training so that ``keep_prob`` of the map stays; identity in evaluation.

    The original keeps the rate that it computed at its first input's width; here it follows each input.
    A ``block_size`` of 0 is off, an even one would shift its squares; a schedule may change it while training.

    Args:
        block_size: Side of the squares in cells, odd, or 0.
        keep_prob: Share of the map that stays, above 0 and up to 1.

    Raises:
        ValueError: If either is another, here or where it is set later.
    """

    def __init__(self, block_size: int = 0, *, keep_prob: float = 0.9) -> None:
        super().__init__()
        self.block_size = block_size
        self.keep_prob = keep_prob

    @property
    def block_size(self) -> int:
        """Side of the squares in cells; 0 is off."""
        return self._block_size

    @block_size.setter
    def block_size(self, value: int) -> None:
        if value < 0 or (value and value % 2 == 0):
            raise ValueError(f"DropBlock's block_size must be odd and positive, or 0 to be off, got {value}")
        self._block_size = value

    @property
    def keep_prob(self) -> float:
        """Share of the map that stays."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float) -> None:
        if not 0 < value <= 1:
            raise ValueError(f"DropBlock's keep_prob must lie above 0 and up to 1, got {value}; 0.9 is usual")
        self._keep_prob = value

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.block_size == 0 or self.keep_prob == 1:
            return x
        rate = drop_rate(x.shape[-1], block_size=self.block_size, keep_prob=self.keep_prob)
        seeds = torch.bernoulli(torch.full_like(x, rate))
        keep = 1 - F.max_pool2d(seeds, self.block_size, stride=1, padding=self.block_size // 2)
        # float32: half precision stops at 65504, and bfloat16 counts in steps of hundreds long before
        return x * keep * (keep.numel() / keep.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)


def drop_rate(width: int, *, block_size: int, keep_prob: float) -> float:
    """Probability of a square starting at a cell of a map ``width`` cells wide."""
    return min(1.0, (1 - keep_prob) * width**2 / (block_size**2 * max(width - block_size + 1, 1) ** 2))
