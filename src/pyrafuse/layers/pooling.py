"""Max-pooling to a wished size, in a form that a graph of any size can hold, too."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrafuse.core.tracing import is_traced


def adaptive_max_pool(x: Tensor, size: tuple[int, ...], *, ratio: int) -> Tensor:
    """`torch.nn.functional.adaptive_max_pool2d` of x (B, C, H, W) to ``size``.

    Args:
        x: Map.
        size: Height and width.
        ratio: About how many times as large x is; a graph, whose sizes are free, needs to know.
    """
    if not is_traced():
        return F.adaptive_max_pool2d(x, size)
    for dim, want in enumerate(size, 2):
        have, places = x.shape[dim], torch.arange(want, device=x.device)
        ends = torch.div((places + 1) * have + want - 1, want, rounding_mode="floor")
        x = max_of_windows(x, dim, places * have // want, ends, longest=2 * ratio)
    return x


def max_of_windows(x: Tensor, dim: int, starts: Tensor, ends: Tensor, *, longest: int) -> Tensor:
    """The greatest value of x along ``dim`` from each of N ``starts`` up to its end, which is not counted.

    Args:
        x: Map.
        dim: A positive one, that becomes N long.
        starts: (N,) int64.
        ends: (N,) int64, above the starts.
        longest: Bound of a window's length.
    """
    places = torch.minimum(starts[:, None] + torch.arange(longest, device=x.device), ends[:, None] - 1)
    return x.index_select(dim, places.flatten()).unflatten(dim, (starts.shape[0], longest)).amax(dim=dim + 1)
