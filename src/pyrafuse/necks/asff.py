"""Adaptively spatial feature fusion: at every position, a softmax gives the weight of each level.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.2.
for each level: resize all levels to it -> weigh each position by softmax -> sum -> 3x3 convolution
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize
from pyrafuse.layers.fusion_weights import FusionWeights
from pyrafuse.necks.registry import NECKS
from pyrafuse.necks.resizing import Resize


def create_resizes(inputs: PyramidSpec, level: int, *, activation: str) -> nn.ModuleList:
    """What brings each level of ``inputs`` to ``level``, finest first; that level itself passes as it is."""
    width = inputs.channels[level]
    return nn.ModuleList(
        nn.Identity()
        if source == level
        else Resize((channels, width), (stride, inputs.strides[level]), activation=activation)
        for source, (channels, stride) in enumerate(zip(inputs.channels, inputs.strides, strict=True))
    )


def resize_all(resizes: nn.ModuleList, pyramid: Pyramid, level: int) -> list[Tensor]:
    """All levels at the channels and size of ``level``, by what `create_resizes` made."""
    size = pyramid[level].shape[-2:]
    return [
        x if source == level else resize(x, size)
        for source, (resize, x) in enumerate(zip(resizes, pyramid, strict=True))
    ]


def channels_of_levels(out_channels: int | Sequence[int] | None, inputs: PyramidSpec) -> tuple[int, ...]:
    """One number a level: ``out_channels`` themselves, the same for all, or by default those that come in.

    Raises:
        ValueError: If there is not one a level.
    """
    if out_channels is None:
        return inputs.channels
    if isinstance(out_channels, int):
        return (out_channels,) * len(inputs)
    if len(out_channels) != len(inputs):
        raise ValueError(f"{len(inputs)} levels come in, and out_channels are {tuple(out_channels)}")
    return tuple(out_channels)


class ASFFLevel(nn.Module):
    """Fusion at one level: pyramid -> (B, ``out_channels``, H, W) of that level."""

    def __init__(
        self, inputs: PyramidSpec, level: int, *, out_channels: int, weight_channels: int, activation: str
    ) -> None:
        super().__init__()
        self.level = level
        width = inputs.channels[level]
        self.resizes = create_resizes(inputs, level, activation=activation)
        self.squeezes = nn.ModuleList(
            ConvNormAct(width, weight_channels, 1, activation=activation) for _ in range(len(inputs))
        )
        self.weigh = nn.Conv2d(weight_channels * len(inputs), len(inputs), 1)
        names = [f"stride_{stride}" for stride in inputs.strides]
        self.weights = FusionWeights(names[level], names, stride=inputs.strides[level])
        self.expand = ConvNormAct(width, out_channels, 3, activation=activation)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """At each position a softmax over the L source levels weighs them."""
        resized = resize_all(self.resizes, pyramid, self.level)
        logits = self.weigh(torch.cat([squeeze(x) for squeeze, x in zip(self.squeezes, resized, strict=True)], dim=1))
        return self.expand(self.weights(logits.softmax(dim=1), resized))


@NECKS.register("asff")
class ASFF(Neck):
    """ASFF over any number of levels.

    Args:
        inputs: The pyramid to fuse.
        out_channels: Channels of each level after its 3x3 convolution, one number for all or one a level; by default
            as many as came in.
        weight_channels: Channels that each level is squeezed to before the weights are computed (8 in ASFF*).
        activation: A key of `ACTIVATIONS`.

    Raises:
        ValueError: If ``out_channels`` are not one a level.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        out_channels: int | Sequence[int] | None = None,
        weight_channels: int = 16,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        widths = channels_of_levels(out_channels, inputs)
        self.levels = nn.ModuleList(
            ASFFLevel(inputs, level, out_channels=out, weight_channels=weight_channels, activation=activation)
            for level, out in enumerate(widths)
        )
        self.features = PyramidSpec(channels=widths, strides=inputs.strides)
        initialize(self)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(level(pyramid) for level in self.levels)
