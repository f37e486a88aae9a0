"""What ASFF is compared with: the same levels, resized and expanded as there, fused by a sum or by concatenation.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, table 3.
for each level: resize all levels to it -> sum, or concatenate and 1x1 convolution -> 3x3 convolution
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize
from pyrafuse.necks.asff import channels_of_levels, create_resizes, resize_all
from pyrafuse.necks.registry import NECKS


class PlainFusionLevel(nn.Module):
    """Fusion at one level: pyramid -> (B, ``out_channels``, H, W) of that level.

    Args:
        inputs: The pyramid to fuse.
        level: Whose channels and size the others are brought to.
        out_channels: After the 3x3 convolution.
        is_sum: Add the resized levels; else concatenate them and come back to the level's channels by a 1x1
            convolution.
        activation: A key of `ACTIVATIONS`.
    """

    def __init__(self, inputs: PyramidSpec, level: int, *, out_channels: int, is_sum: bool, activation: str) -> None:
        super().__init__()
        self.level = level
        width = inputs.channels[level]
        self.resizes = create_resizes(inputs, level, activation=activation)
        self.merge = None if is_sum else ConvNormAct(width * len(inputs), width, 1, activation=activation)
        self.expand = ConvNormAct(width, out_channels, 3, activation=activation)

    def forward(self, pyramid: Pyramid) -> Tensor:
        resized = resize_all(self.resizes, pyramid, self.level)
        fused = torch.stack(resized).sum(dim=0) if self.merge is None else self.merge(torch.cat(resized, dim=1))
        return self.expand(fused)


class PlainFusion(Neck):
    """Sum or concatenation at every level; see `sum_fusion` and `concat_fusion`.

    Args:
        inputs: The pyramid to fuse.
        is_sum: Whether maps are added; else they are concatenated.
        out_channels: Channels of each level after its 3x3 convolution, one number for all or one a level; by default
            as many as came in.
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If ``out_channels`` are not one a level.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        is_sum: bool,
        out_channels: int | Sequence[int] | None = None,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        widths = channels_of_levels(out_channels, inputs)
        self.levels = nn.ModuleList(
            PlainFusionLevel(inputs, level, out_channels=out, is_sum=is_sum, activation=activation)
            for level, out in enumerate(widths)
        )
        self.features = PyramidSpec(channels=widths, strides=inputs.strides)
        initialize(self)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(level(pyramid) for level in self.levels)


@NECKS.register("sum_fusion")
def sum_fusion(
    inputs: PyramidSpec, *, out_channels: int | Sequence[int] | None = None, activation: str = "leaky_relu"
) -> PlainFusion:
    """ASFF with every weight 1: the resized levels are added."""
    return PlainFusion(inputs, is_sum=True, out_channels=out_channels, activation=activation)


@NECKS.register("concat_fusion")
def concat_fusion(
    inputs: PyramidSpec, *, out_channels: int | Sequence[int] | None = None, activation: str = "leaky_relu"
) -> PlainFusion:
    """The resized levels are concatenated, and a 1x1 convolution brings them to the level's channels.

    The paper does not say how the concatenation comes back to the level's width; here the 1x1 convolution has batch
    norm and activation, as all others of the baseline.
    """
    return PlainFusion(inputs, is_sum=False, out_channels=out_channels, activation=activation)
