"""Receptive field block: four branches that look ever farther.

Liu et al., "Receptive Field Block Net", arXiv:1711.07767; the form of ASFF* (arXiv:1911.09516): no normalisation, no
activation, no shortcut.
"""

import torch
from torch import Tensor, nn


class RFB(nn.Module):
    """(B, C, H, W) -> (B, C, H, W) from four branches of C/4 channels: 1x1; 3x3; 3x3 dilated 2; 5x5, 3x3 dilated 3.

    Raises:
        ValueError: If ``channels`` is not a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"RFB splits its channels into four branches, and {channels} is no multiple of 4")
        width = channels // 4

        def branch(*kernels: tuple[int, int]) -> nn.Sequential:
            convs = [nn.Conv2d(channels, width, 1)]
            convs += [nn.Conv2d(width, width, k, padding=d * (k // 2), dilation=d) for k, d in kernels]
            return nn.Sequential(*convs)

        self.branches = nn.ModuleList((branch(), branch((3, 1)), branch((3, 1), (3, 2)), branch((5, 1), (3, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)
