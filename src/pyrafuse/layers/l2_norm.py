"""L2 normalisation over channels with a learnt scale, which brings early features to the size of later ones.

Liu, Rabinovich and Berg, "ParseNet", arXiv:1506.04579, section 3.3, as used by SSD, arXiv:1512.02325.
"""

import torch
from torch import Tensor, nn


class L2Norm(nn.Module):
    """x (B, C, H, W) -> weight * x / (norm of x over channels + 1e-10), at each cell.

    Args:
        channels: Number of channels, C.
        scale: Initial weight of each channel.
    """

    def __init__(self, channels: int, *, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        # the squares of half precision overflow at 256
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True) + 1e-10
        return (self.weight[:, None, None] * wide / norm).to(x.dtype)
