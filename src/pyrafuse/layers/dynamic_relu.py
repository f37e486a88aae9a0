"""Dynamic ReLU: an activation whose slopes and intercepts the whole map decides on.

Chen et al., "Dynamic ReLU", arXiv:2003.10027; as task-aware attention in "Dynamic Head", arXiv:2106.08322, section 3.3.
x -> means of channels -> 1x1 convolutions -> a1, a2, b1, b2 of each channel -> max(a1 x + b1, a2 x + b2)
"""

from torch import Tensor, nn

from pyrafuse.layers.conv import ZeroConv2d


class DynamicReLU(nn.Module):
    """Activation of x (B, C, H, W), of the same shape; at first nearly ReLU.

    The slopes a1 and a2 lie within 1 of 1 and of 0, the intercepts b1 and b2 within a half of 0, as in the paper.

    Args:
        channels: Number of channels, C.
        reduction: Divides the channels between the two convolutions, which are 8 or more, or C.
    """

    def __init__(self, channels: int, *, reduction: int = 4) -> None:
        super().__init__()
        width = max(min(channels, 8), channels // reduction)
        self.squeeze = nn.Conv2d(channels, width, 1)
        self.expand = ZeroConv2d(width, 4 * channels, spread=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        numbers = self.expand(self.squeeze(x.mean(dim=(2, 3), keepdim=True)).relu())
        first, second, above, below = (2 * numbers.sigmoid() - 1).chunk(4, dim=1)
        return ((1 + first) * x + above / 2).maximum(second * x + below / 2)
