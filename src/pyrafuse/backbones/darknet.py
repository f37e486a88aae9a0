"""Darknet-53: residual 1x1-3x3 pairs between strided 3x3 convolutions.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767. images -> stem -> five stages -> maps
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.layers.conv import ConvNormAct, initialize


class Residual(nn.Module):
    """x + conv3x3(conv1x1(x)), through half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels // 2, 1)
        self.expand = ConvNormAct(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.expand(self.reduce(x))


@dataclass(frozen=True)
class Origin:
    """How others call the modules of `Darknet53`; stages and blocks count from 0.

    Attributes:
        stem: The first convolution.
        down: The strided convolution of a stage.
        half: The 1x1 convolution of a residual block, 0, or its 3x3 convolution, 1: by stage, block and this number.
        norm: A batch norm.
        stage: Regular expression of all that belongs to a stage.
        rest: Regular expression of what lies behind the backbone.
    """

    stem: str
    down: Callable[[int], str]
    half: Callable[[int, int, int], str]
    norm: str
    stage: Callable[[int], str]
    rest: str

    def name(self, key: str) -> str:
        """Their key of one of ours."""
        place = re.match(r"stages\.(\d+)\.(\d+)\.(?:(reduce|expand)\.)?", key)
        if place is None:
            theirs, rest = self.stem, key.removeprefix("stem.")
        else:
            stage, block, rest = int(place[1]), int(place[2]) - 1, key[place.end() :]
            theirs = self.half(stage, block, int(place[3] == "expand")) if place[3] else self.down(stage)
        return f"{theirs}.{rest.replace('norm.', f'{self.norm}.')}"


OURS = Origin(
    "stem",
    lambda stage: f"stages.{stage}.0",
    lambda stage, block, half: f"stages.{stage}.{block + 1}.{('reduce', 'expand')[half]}",
    "norm",
    lambda stage: rf"stages\.{stage}\.",
    "$",
)
ORIGINS = {
    "module_list.0.conv.weight": Origin(  # ASFF's authors
        "module_list.0",
        lambda stage: f"module_list.{2 * stage + 1}",
        lambda stage, block, half: f"module_list.{2 * stage + 2}.module_list.{block}.{half}",
        "batch_norm",
        lambda stage: rf"module_list\.({2 * stage + 1}|{2 * stage + 2})\.",
        r"module_list\.(1[1-9]|[2-9]\d)\.|level_\d_",
    ),
    "conv1.conv.weight": Origin(  # mmdetection
        "conv1",
        lambda stage: f"conv_res_block{stage + 1}.conv",
        lambda stage, block, half: f"conv_res_block{stage + 1}.res{block}.conv{half + 1}",
        "bn",
        lambda stage: rf"conv_res_block{stage + 1}\.",
        r"fc\.",
    ),
    "stem.conv1.conv.weight": Origin(  # timm
        "stem.conv1",
        lambda stage: f"stages.{stage}.conv_down",
        lambda stage, block, half: f"stages.{stage}.blocks.{block}.conv{half + 1}",
        "bn",
        lambda stage: rf"stages\.{stage}\.",
        r"head\.",
    ),
}
"""By a key that none of the others has."""


def name_darknet53(key: str) -> str:
    """The published key (timm's) of a Darknet-53's key."""
    return ORIGINS["stem.conv1.conv.weight"].name(key)


@BACKBONES.register("darknet53")
class Darknet53(StagedBackbone):
    """Darknet-53.

    Args:
        width: Multiplies every channel count; 0.25 is a small form for work without a GPU.
        depths: Residual blocks a stage.
        strides: Which maps to give, of 2, 4, 8, 16 and 32; stages behind the last are left out.
        weights: Checkpoint with this module's keys, or of mmdetection or timm, or of a detector of ASFF's authors or of
            mmdetection, whose trunk is taken; a file or ``timm/darknet53``. timm's was trained with another ``slope``
            than all others.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages, of which the first ends at
            stride 2: they keep their weights, and their norms the statistics.
        norm_eval: Batch norms normalise by their stored statistics in training too.
        slope: Slope of every activation below zero; timm's ImageNet training has 0.01.

    Raises:
        PyrafuseError: If there is no map at one of ``strides``, they do not grow, or there is no such stage.
        CheckpointError: If ``weights`` do not fit.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        strides: Sequence[int] = (8, 16, 32),
        weights: str | os.PathLike[str] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        slope: float = 0.1,
    ) -> None:
        channels = [max(8, round(32 * 2**i * width)) for i in range(len(depths) + 1)]
        stages = [
            nn.Sequential(ConvNormAct(before, after, 3, stride=2), *(Residual(after) for _ in range(depth)))
            for before, after, depth in zip(channels, channels[1:], depths, strict=False)
        ]
        super().__init__(
            ConvNormAct(3, channels[0], 3),
            stages,
            channels=channels[1:],
            stage_strides=[2 ** (i + 1) for i in range(len(depths))],
            strides=strides,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
        )
        for part in self.modules():
            if isinstance(part, nn.LeakyReLU):
                part.negative_slope = slope
        initialize(self, slope=slope)
        if weights is not None:
            state = read_published(weights)
            origin = next((origin for mark, origin in ORIGINS.items() if mark in state), OURS)
            unused = [origin.rest, *(origin.stage(i) for i in range(len(self.stages), len(depths)))]
            load_exactly(self, state, source=weights, naming=origin.name, unused=unused)
