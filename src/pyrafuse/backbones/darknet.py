"""Darknet-53: residual 1x1-3x3 pairs between strided 3x3 convolutions.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767. images -> stem -> five stages -> maps
"""

import os
from collections.abc import Sequence

from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.weights import load_exactly, read_state_dict
from pyrafuse.core.errors import PyrafuseError
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
        strides: Which maps to give, of 2, 4, 8, 16 and 32; stages behind the last are left out.
        weights: Checkpoint with this module's keys.

    Raises:
        PyrafuseError: If there is no map at one of ``strides``.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        strides: Sequence[int] = (8, 16, 32),
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        offered = tuple(2 ** (i + 1) for i in range(len(depths)))
        if not strides or not set(strides) <= set(offered):
            raise PyrafuseError(f"darknet53 has maps at strides {offered}; {tuple(strides)} were asked for")
        self._taps = tuple(offered.index(stride) for stride in strides)
        channels = [max(8, round(32 * 2**i * width)) for i in range(self._taps[-1] + 2)]
        self.stem = ConvNormAct(3, channels[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(before, after, 3, stride=2), *(Residual(after) for _ in range(depth)))
            for before, after, depth in zip(channels, channels[1:], depths, strict=False)
        )
        self.features = PyramidSpec(channels=tuple(channels[tap + 1] for tap in self._taps), strides=tuple(strides))
        initialize(self)
        if weights is not None:
            load_exactly(self, read_state_dict(weights), source=weights)

    def forward(self, images: Tensor) -> Pyramid:
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[tap] for tap in self._taps)
