"""One number of channels for all levels, for heads that read all levels with the same weights.

map of each level -> 1x1 convolution, as FPN's lateral connections (Lin et al., arXiv:1612.03144) -> map
"""

from torch import nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import initialize
from pyrafuse.necks.registry import NECKS


@NECKS.register("projection")
class Projection(Neck):
    """A 1x1 convolution a level, and nothing between the levels.

    Args:
        inputs: Channels and strides of the input pyramid.
        out_channels: Channels of every level that goes out.
    """

    def __init__(self, inputs: PyramidSpec, *, out_channels: int = 256) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in inputs.channels)
        initialize(self, slope=1)
        self.features = PyramidSpec((out_channels,) * len(inputs), inputs.strides)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(conv(x) for conv, x in zip(self.convs, pyramid, strict=True))
