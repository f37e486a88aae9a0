"""Spatial pyramid pooling: of fixed length for a map of any size, and in the form of YOLO, which keeps the map.

He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks", arXiv:1406.4729, section 2; the stride-1 form of
YOLOv3-SPP.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialPyramidPooling(nn.Module):
    """(B, C, H, W) -> (B, C * sum of n^2), whatever H and W are, from 1 up.

    Level n cuts the map into n x n bins: bin i of a side of h cells goes from cell floor(i * h / n) up to
    ceil((i + 1) * h / n), so bins overlap where n does not divide h and repeat cells where h is below n. Each level is
    flattened channel by channel, its bins in rows; levels follow each other in the given order. The paper's windows of
    equal size, ceil(h / n) cells every floor(h / n), give another number of bins for some sizes, 7 cells in 4 say.

    Args:
        levels: Numbers n of bins per side.
        mode: What is taken of each bin.

    Raises:
        ValueError: If there is no level, one is below 1, or the mode is another.
    """

    def __init__(self, levels: tuple[int, ...] = (1, 2, 4), *, mode: Literal["max", "average"] = "max") -> None:
        super().__init__()
        if not levels or min(levels) < 1:
            raise ValueError(f"spatial pyramid pooling needs levels of 1 x 1 bins or more, got {levels}")
        if mode not in ("max", "average"):
            raise ValueError(f"unknown mode {mode!r} of spatial pyramid pooling; choose from max, average")
        self.levels = tuple(levels)
        self._pool = F.adaptive_max_pool2d if mode == "max" else F.adaptive_avg_pool2d

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._pool(x, (n, n)).flatten(1) for n in self.levels], dim=1)


class YOLOSPP(nn.Module):
    """Concatenate x with its max-pools over growing windows: (B, C, H, W) -> (B, C * (1 + windows), H, W).

    Pools in a row add up: after a window of 5, another of 5 has seen 9 cells. So each reuses the one before; equal to
    pools beside each other, and cheaper. The row of three pools of 5 cells known as SPPF is the default.

    Args:
        windows: Sides in cells, odd and growing.

    Raises:
        ValueError: If they are not.
    """

    def __init__(self, windows: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        steps = [after - before + 1 for before, after in zip((1, *windows), windows, strict=False)]
        if not windows or any(step < 3 or step % 2 == 0 for step in steps):
            raise ValueError(f"windows must be odd, above 1 and growing, got {windows}")
        self.pools = nn.ModuleList(nn.MaxPool2d(step, stride=1, padding=step // 2) for step in steps)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for pool in self.pools:
            maps.append(pool(maps[-1]))
        return torch.cat(maps, dim=1)
