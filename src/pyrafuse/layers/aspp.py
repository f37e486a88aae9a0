"""Atrous spatial pyramid pooling: one map seen through several dilations and as a whole.

Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (DeepLabv3), arXiv:1706.05587, section
3.3; the form between the rounds of a recursive pyramid: Qiao et al., "DetectoRS", arXiv:2006.02334, section 3.2.
"""

import torch
from torch import Tensor, nn

from pyrafuse.layers.conv import ConvNormAct


class ASPP(nn.Module):
    """(B, C, H, W) -> (B, C_out, H, W): 1x1, one dilated 3x3 for each rate, the global mean; concatenated, 1x1.

    Every convolution is followed by batch norm and ReLU; the mean stands at every cell again.

    Args:
        in_channels: Number of input channels, C.
        out_channels: C_out, of each branch too.
        rates: Dilations; the paper's at stride 16, to be doubled at stride 8.
        dropout: Share of values dropped at the end in training.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, *, rates: tuple[int, ...] = (6, 12, 18), dropout: float = 0.5
    ) -> None:
        super().__init__()

        def conv(before: int, kernel_size: int = 1, dilation: int = 1) -> ConvNormAct:
            return ConvNormAct(before, out_channels, kernel_size, dilation=dilation, activation="relu")

        self.branches = nn.ModuleList((conv(in_channels), *(conv(in_channels, 3, rate) for rate in rates)))
        self.whole = conv(in_channels)
        self.project = conv((len(rates) + 2) * out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        maps.append(self.whole(x.mean((2, 3), keepdim=True)).expand_as(maps[0]))
        return self.dropout(self.project(torch.cat(maps, dim=1)))


class FeedbackASPP(nn.Module):
    """(B, C, H, W) -> (B, branches * C_branch, H, W), what DetectoRS feeds back: no norm, no projection.

    Each branch is a convolution with bias and ReLU: 1x1 for a dilation of 1, else 3x3; the last sees the global mean.

    Args:
        in_channels: Number of input channels, C.
        branch_channels: C_branch; by default a quarter of C, so that four branches give C again.
        dilations: Dilation of each branch; of the last one only the kernel size counts.
    """

    def __init__(
        self, in_channels: int, branch_channels: int | None = None, *, dilations: tuple[int, ...] = (1, 3, 6, 1)
    ) -> None:
        super().__init__()
        branch_channels = max(1, in_channels // 4) if branch_channels is None else branch_channels
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, branch_channels, 1 if d == 1 else 3, dilation=d, norm=False, activation="relu")
            for d in dilations
        )
        self.out_channels = len(dilations) * branch_channels

    def forward(self, x: Tensor) -> Tensor:
        *local, whole = self.branches
        maps = [branch(x) for branch in local]
        mean = whole(x.mean((2, 3), keepdim=True))
        return torch.cat((*maps, mean.expand(-1, -1, *x.shape[2:])), dim=1)
