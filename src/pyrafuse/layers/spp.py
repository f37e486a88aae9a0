"""Spatial pyramid pooling in the form of YOLO: the map beside its own maxima over growing windows.

He et al., arXiv:1406.4729, in the stride-1 form of YOLOv3-SPP.
"""

import torch
from torch import Tensor, nn


class YOLOSPP(nn.Module):
    """Concatenate x with its max-pools over 5, 9 and 13 cells: (B, C, H, W) -> (B, 4C, H, W).

    Pools of 5 in a row have windows of 5, 9 and 13, so each reuses the one before: equal, and cheaper.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        pool5 = self.pool(x)
        pool9 = self.pool(pool5)
        return torch.cat((x, pool5, pool9, self.pool(pool9)), dim=1)
