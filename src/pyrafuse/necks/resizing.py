"""From the channels and stride of one level to those of another, as ASFF does it.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.2.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.layers.conv import ConvNormAct, upsample_to


class Resize(nn.Module):
    """Bring one level to the channels and stride of another.

    Down: max-pools of stride 2, then a 3x3 convolution of stride 2. Up: a 1x1 convolution where the channels differ,
    then nearest neighbour.
    """

    def __init__(self, channels: tuple[int, int], strides: tuple[int, int], *, activation: str) -> None:
        super().__init__()
        halvings = math.ceil(math.log2(strides[1] / strides[0]))
        if halvings > 0:
            pools = (nn.MaxPool2d(3, stride=2, padding=1) for _ in range(halvings - 1))
            self.project: nn.Module = nn.Sequential(*pools, ConvNormAct(*channels, 3, stride=2, activation=activation))
        elif channels[0] != channels[1]:
            self.project = ConvNormAct(*channels, 1, activation=activation)
        else:
            self.project = nn.Identity()

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return upsample_to(self.project(x), size)
