"""Darknet-53: residual 1x1-3x3 pairs between strided 3x3 convolutions.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767. images -> stem -> five stages -> maps at strides 8, 16, 32
"""

import os

from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.weights import load_exactly, read_state_dict
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize


class Residual(nn.Module):
    """x + conv3x3(conv1x1(x)), through half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels // 2, 1)
        self.expand = ConvNormAct(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.reduce(x))


@BACKBONES.register("darknet53")
class Darknet53(Backbone):
    """Darknet-53.

    Args:
        width: Multiplies every channel count; 0.25 is a small form for work without a GPU.
        depths: Residual blocks a stage.
        weights: Checkpoint with this module's keys.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        channels = [max(8, round(32 * 2**i * width)) for i in range(6)]
        self.stem = ConvNormAct(3, channels[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(before, after, 3, stride=2), *(Residual(after) for _ in range(depth)))
            for before, after, depth in zip(channels, channels[1:], depths, strict=False)
        )
        self.features = PyramidSpec(channels=tuple(channels[3:]), strides=(8, 16, 32))
        initialize(self)
        if weights is not None:
            load_exactly(self, read_state_dict(weights), source=weights)

    def forward(self, images: Tensor) -> Pyramid:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[2:])
