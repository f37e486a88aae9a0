"""Squeeze and excitation: two small layers say from all channels' means how much each one counts.

Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3.
x -> mean over positions -> fewer channels -> ReLU -> all channels -> sigmoid -> times x
"""

import torch.nn.functional as F
from torch import Tensor, nn


class SE(nn.Module):
    """Multiply each channel of x (B, C, H, W) by a weight in 0..1.

    Args:
        channels: Number of channels, C.
        reduction: The bottleneck has C / ``reduction`` channels, at least one.

    Raises:
        ValueError: If ``reduction`` is not positive.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"SE's reduction must be 1 or more, got {reduction}; the paper's is 16")
        self.squeeze = nn.Conv2d(channels, max(1, channels // reduction), 1)
        self.excite = nn.Conv2d(max(1, channels // reduction), channels, 1)

    def gate(self, x: Tensor) -> Tensor:
        """The weights (B, C, 1, 1)."""
        return self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)
