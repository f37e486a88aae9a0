"""Efficient channel attention: every channel is weighed by itself and a few neighbours.

Wang et al., "ECA-Net", arXiv:1910.03151.
x -> mean over positions -> 1-D convolution over channels -> sigmoid -> times x
"""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def eca_kernel_size(channels: int, *, gamma: float = 2.0, b: float = 1.0) -> int:
    """How many channels are weighed together: the odd number at ``|(log2 channels + b) / gamma|``, section 3.2.3.

    As the official formula does, the value is cut to a whole number t; an even t becomes t + 1.

    Raises:
        ValueError: If there are no channels, or ``gamma`` is 0.
    """
    if channels < 1 or gamma == 0:
        raise ValueError(f"eca_kernel_size needs channels >= 1 and gamma != 0, got {channels} and {gamma}")
    t = int(abs((math.log2(channels) + b) / gamma))
    return t if t % 2 else t + 1


class ECA(nn.Module):
    """Multiply each channel of x (B, C, H, W) by a weight in 0..1.

    Args:
        channels: Number of channels, C.
        kernel_size: Channels that are weighed together, odd; by default `eca_kernel_size` of C.
        padding: What lies beyond the first and last channel: ``zeros``, or ``circular``, the other end (timm's
            "CECA").

    Raises:
        ValueError: If ``kernel_size`` is not odd and positive, or the padding is another.
    """

    def __init__(
        self, channels: int, *, kernel_size: int | None = None, padding: Literal["zeros", "circular"] = "zeros"
    ) -> None:
        super().__init__()
        kernel_size = eca_kernel_size(channels) if kernel_size is None else kernel_size
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"ECA's kernel_size must be odd and positive, got {kernel_size}; 3, 5 or 7 are usual")
        if padding not in ("zeros", "circular"):
            raise ValueError(f"unknown padding {padding!r} of ECA; choose from zeros, circular")
        self.conv = nn.Conv1d(1, 1, kernel_size, bias=False)
        self._mode = "constant" if padding == "zeros" else "circular"

    def gate(self, x: Tensor) -> Tensor:
        """The weights (B, C, 1, 1)."""
        reach = self.conv.kernel_size[0] // 2
        rows = F.pad(x.mean((2, 3)).unsqueeze(1), (reach, reach), mode=self._mode)
        return self.conv(rows).sigmoid().squeeze(1)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)
