"""SSD's extra levels: the backbone's maps as they are, and ever coarser ones behind the last.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, section 2.1; the finest map is L2-normalised,
section 3.1. maps -> (finest: L2 norm); last map -> (1x1, 3x3) -> level -> (1x1, 3x3) -> level ...
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize
from pyrafuse.layers.l2_norm import L2Norm
from pyrafuse.layers.padding import pad_to
from pyrafuse.necks.registry import NECKS


class ExtraLevel(nn.Module):
    """x (B, C, H, W) -> the next coarser level: 1x1 to half of its channels, then ``kernel_size`` squared.

    A map that is too small for the convolution is padded until one cell comes out.

    Args:
        in_channels: Number of input channels, C.
        out_channels: Channels of the level.
        kernel_size: Kernel size of the second convolution.
        stride: Stride of the second convolution.
        padding: Padding of the second convolution.
        depthwise: The second convolution is a depthwise one and a 1x1, each with norm and activation.
        norm: Batch norm behind every convolution; else each has a bias.
        activation: A key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int,
        depthwise: bool,
        norm: bool,
        activation: str,
    ) -> None:
        super().__init__()
        width = out_channels // 2
        self.reduce = ConvNormAct(in_channels, width, 1, norm=norm, activation=activation)
        self.down = ConvNormAct(
            width,
            width if depthwise else out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=width if depthwise else 1,
            norm=norm,
            activation=activation,
        )
        self.expand = (
            ConvNormAct(width, out_channels, 1, norm=norm, activation=activation) if depthwise else nn.Identity()
        )
        self._least = kernel_size - 2 * padding

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.down(pad_to(self.reduce(x), self._least)))


@NECKS.register("ssd_extra")
class SSDExtraLevels(Neck):
    """What comes in, and extra levels behind it; the defaults are SSD300's.

    SSD512 has ``out_channels=(512, 256, 256, 256, 256)``, ``strides=(2, 2, 2, 2, 1)``, ``paddings=(1, 1, 1, 1, 1)`` and
    ``last_kernel_size=4``.

    The stride said of a level is twice that of the one before, whatever its convolution does: without padding, 5 cells
    become 3, and 3 become 1.

    Args:
        inputs: Channels and strides of the backbone's maps.
        out_channels: Channels of each extra level.
        strides: Stride of each extra level's convolution.
        paddings: Padding of each extra level's convolution.
        last_kernel_size: Kernel size of the last level's convolution; the others are 3x3.
        l2_norm_scale: Initial scale of the finest map's L2 norm; none turns the norm off.
        depthwise: The extra levels' strided convolutions are separable.
        norm: Batch norm in the extra levels.
        activation: Activation of the extra levels, a key of `ACTIVATIONS`.

    Raises:
        ValueError: If strides and paddings are not one a level, or a level has fewer than 2 channels.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        out_channels: Sequence[int] = (512, 256, 256, 256),
        strides: Sequence[int] = (2, 2, 1, 1),
        paddings: Sequence[int] = (1, 1, 0, 0),
        last_kernel_size: int = 3,
        l2_norm_scale: float | None = 20.0,
        depthwise: bool = False,
        norm: bool = False,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if not len(out_channels) == len(strides) == len(paddings):
            raise ValueError(
                f"each extra level needs channels, a stride and a padding: out_channels {tuple(out_channels)},"
                f" strides {tuple(strides)}, paddings {tuple(paddings)}"
            )
        if any(channels < 2 for channels in out_channels):
            raise ValueError(f"an extra level has 2 channels or more, got out_channels {tuple(out_channels)}")
        self.l2_norm = nn.Identity() if l2_norm_scale is None else L2Norm(inputs.channels[0], scale=l2_norm_scale)
        channels = (*inputs.channels, *out_channels)
        self.extra_levels = nn.ModuleList()
        for i, (stride, padding) in enumerate(zip(strides, paddings, strict=True)):
            before, after = channels[len(inputs) + i - 1 : len(inputs) + i + 1]
            level = ExtraLevel(
                before,
                after,
                kernel_size=last_kernel_size if i == len(strides) - 1 else 3,
                stride=stride,
                padding=padding,
                depthwise=depthwise,
                norm=norm,
                activation=activation,
            )
            self.extra_levels.append(level)
        doubled = (inputs.strides[-1] * 2 ** (i + 1) for i in range(len(strides)))
        self.features = PyramidSpec(channels=channels, strides=(*inputs.strides, *doubled))
        initialize(self, slope=0)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps = list(pyramid)
        for level in self.extra_levels:
            maps.append(level(maps[-1]))
        return (self.l2_norm(maps[0]), *maps[1:])
