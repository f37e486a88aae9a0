"""Padding of maps that are too small for a convolution without padding."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrafuse.core.tracing import is_traced


def pad_to(x: Tensor, cells: int) -> Tensor:
    """Zeros around x (B, C, H, W) up to ``cells`` cells a side, the odd one below and right; larger maps as they are.

    With the kernel's size as ``cells``, a convolution without padding gives at least one cell.
    """
    height, width = x.shape[-2:]
    # a graph does not ask what is missing: the answer would hold for the example alone
    if not is_traced() and height >= cells and width >= cells:
        return x
    down, right = torch.sym_max(0, cells - height), torch.sym_max(0, cells - width)
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
