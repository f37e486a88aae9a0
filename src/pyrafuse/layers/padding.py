"""Padding of maps that are too small for a convolution without padding."""

import torch.nn.functional as F
from torch import Tensor

from pyrafuse.core.tracing import lacking


def pad_to(x: Tensor, cells: int) -> Tensor:
    """Zeros around x (B, C, H, W) up to ``cells`` cells a side, the odd one below and right; larger maps as they are.

    With the kernel's size as ``cells``, a convolution without padding gives at least one cell.
    """
    if (missing := lacking(x, cells)) is None:
        return x
    down, right = missing
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
