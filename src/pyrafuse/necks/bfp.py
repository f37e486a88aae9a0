"""Balanced feature pyramid: all levels are averaged at one, refined there, and given back to all.

Pang et al., "Libra R-CNN", arXiv:1904.02701, section 3.2.
levels -> resized to one -> mean -> refinement -> resized to each level, added to it
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize, upsample_to
from pyrafuse.layers.non_local import NonLocal
from pyrafuse.layers.pooling import adaptive_max_pool
from pyrafuse.necks.registry import NECKS

Refinement = Literal["none", "conv", "non_local", "embedded_gaussian", "dot_product"]


@NECKS.register("bfp")
class BFP(Neck):
    """Balanced feature pyramid: the input's levels, each with the refined mean of all added; for use after an FPN.

    Finer levels come to the gathering level by adaptive max-pooling, coarser ones by nearest neighbours; and back the
    other way round.

    Args:
        inputs: Channels and strides of the input pyramid. The paper's levels have the same channels; where they
            differ, each passes a 1x1 convolution first.
        out_channels: Channels of every level; by default those of the finest that comes in.
        level: Gathering level, 0 for the finest; by default the one of stride 16, as in the paper, or else the middle.
        refinement: ``non_local`` is the paper's, a non-local block with embedded Gaussian weights, and
            ``embedded_gaussian`` another name of it; ``dot_product`` the same block, weighing by the product alone
            (arXiv:1711.07971, section 3.2); ``conv`` a 3x3 convolution and ReLU; ``none`` the mean as it is.

    Raises:
        ValueError: If there is no such level or refinement.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        out_channels: int | None = None,
        level: int | None = None,
        refinement: Refinement = "non_local",
    ) -> None:
        super().__init__()
        if level is None:
            level = inputs.strides.index(16) if 16 in inputs.strides else len(inputs) // 2
        if not 0 <= level < len(inputs):
            raise ValueError(f"{len(inputs)} levels come in; level must lie in 0..{len(inputs) - 1}, got {level}")
        if refinement not in get_args(Refinement):
            raise ValueError(f"unknown refinement {refinement!r}; choose from {', '.join(get_args(Refinement))}")
        channels = inputs.channels[0] if out_channels is None else out_channels
        self.laterals = nn.ModuleList(
            nn.Identity() if before == channels else nn.Conv2d(before, channels, 1) for before in inputs.channels
        )
        initialize(self.laterals, slope=1)
        self.refine = nn.Identity()
        if refinement == "conv":
            self.refine = ConvNormAct(channels, channels, 3, norm=False, activation="relu")
            initialize(self.refine, slope=0)
        elif refinement == "dot_product":
            self.refine = NonLocal(channels, reduction=1, mode="dot_product")
        elif refinement != "none":
            self.refine = NonLocal(channels, reduction=1)
        self._level = level
        self.features = PyramidSpec(channels=(channels,) * len(inputs), strides=inputs.strides)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        maps = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        size = maps[self._level].shape[2:]
        down = [self._pool(x, size, level, self._level) for level, x in enumerate(maps[: self._level])]
        up = [upsample_to(x, size) for x in maps[self._level :]]
        balanced = self.refine(torch.stack((*down, *up)).mean(dim=0))
        return tuple(x + self._give_back(balanced, x, level) for level, x in enumerate(maps))

    def _give_back(self, balanced: Tensor, x: Tensor, level: int) -> Tensor:
        size = x.shape[2:]
        if level <= self._level:
            return upsample_to(balanced, size)
        return self._pool(balanced, size, self._level, level)

    def _pool(self, x: Tensor, size: tuple[int, ...], level: int, to: int) -> Tensor:
        ratio = -(-self.features.strides[to] // self.features.strides[level])
        return adaptive_max_pool(x, size, ratio=ratio)
