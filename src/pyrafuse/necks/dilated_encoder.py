"""Dilated encoder: one level sees objects of all sizes through residual blocks of growing dilation.

Chen et al., "You Only Look One-level Feature" (YOLOF), arXiv:2103.09460, section 4.1.
map -> 1x1 -> 3x3 -> residual blocks of dilation 2, 4, 6, 8 -> map
"""

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize
from pyrafuse.necks.registry import NECKS


class DilatedResidual(nn.Module):
    """x + 1x1(dilated 3x3(1x1(x))), each with norm and ReLU."""

    def __init__(self, channels: int, width: int, *, dilation: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, width, 1, activation="relu")
        self.look = ConvNormAct(width, width, 3, dilation=dilation, activation="relu")
        self.expand = ConvNormAct(width, channels, 1, activation="relu")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.look(self.reduce(x)))


@NECKS.register("dilated_encoder")
class DilatedEncoder(Neck):
    """YOLOF's neck. The paper's detector has one level, C5; where more come in, each has an encoder of its own.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of each level.
        block_channels: Inside the residual blocks; by default a quarter of ``out_channels``.
        dilations: Dilations of the residual blocks.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        out_channels: int = 512,
        block_channels: int | None = None,
        dilations: tuple[int, ...] = (2, 4, 6, 8),
    ) -> None:
        super().__init__()
        width = max(1, out_channels // 4) if block_channels is None else block_channels

        def projector(in_channels: int) -> tuple[nn.Module, ...]:
            # no activation, and biases before norms: as in the released checkpoints
            first, second = nn.Conv2d(in_channels, out_channels, 1), nn.Conv2d(out_channels, out_channels, 3, padding=1)
            return first, nn.BatchNorm2d(out_channels), second, nn.BatchNorm2d(out_channels)

        self.levels = nn.ModuleList(
            nn.Sequential(*projector(before), *(DilatedResidual(out_channels, width, dilation=d) for d in dilations))
            for before in inputs.channels
        )
        self.features = PyramidSpec(channels=(out_channels,) * len(inputs), strides=inputs.strides)
        initialize(self, slope=0)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(level(x) for level, x in zip(self.levels, pyramid, strict=True))
