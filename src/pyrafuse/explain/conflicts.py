"""Where output levels disagree about a position of a source level: gradients -> counts, cosines, norms.

Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516, section 3.4.
gradients by output level, positives by output level -> pairs (positive, background) at each position -> sums
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyrafuse.base.conflicts import Conflicts

Positive = Sequence[Tensor]
"""(B, H_n, W_n) bool of each output level, finest first: whether a cell is matched to an object."""


def spread_positives(positives: Positive, strides: Sequence[int], size: tuple[int, int], stride: int) -> Tensor:
    """(N, B, H, W) bool: whether any cell of output level n that overlaps a source cell is matched to an object.

    Args:
        positives: Positives of the N output levels.
        strides: Pixels a cell of the N output levels.
        size: Rows and columns of the source level.
        stride: Pixels a cell of the source level.
    """
    regions = []
    for cells, output_stride in zip(positives, strides, strict=True):
        rows = _overlaps(size[0], stride, cells.shape[-2], output_stride, cells.device)
        columns = _overlaps(size[1], stride, cells.shape[-1], output_stride, cells.device)
        regions.append(torch.einsum("yi,bij,xj->byx", rows, cells.to(rows.dtype), columns) > 0)
    return torch.stack(regions)


def _overlaps(count: int, stride: int, other_count: int, other_stride: int, device: torch.device) -> Tensor:
    """(count, other_count) float32: 1 where cell i of one grid and cell k of the other share pixels."""
    begin = torch.arange(count, device=device)[:, None] * stride
    other = torch.arange(other_count, device=device) * other_stride
    return ((begin < other + other_stride) & (other < begin + stride)).float()


def find_conflicts(gradients: Tensor, is_positive: Tensor) -> Tensor:
    """(N, N, B, H, W) bool: level n is matched to an object, m is not, and their gradients have a negative cosine.

    Args:
        gradients: (N, B, C, H, W), what a source level receives from each output level.
        is_positive: (N, B, H, W) bool, from `spread_positives`.
    """
    return _pairs(is_positive) & (_products(gradients) < 0)


def measure_conflicts(gradients: Tensor, is_positive: Tensor, *, judged: Tensor | None = None) -> Conflicts:
    """Count positions in conflict, and measure what opposes there.

    Args:
        gradients: (N, B, C, H, W), what a source level receives from each output level.
        is_positive: (N, B, H, W) bool, from `spread_positives`.
        judged: (N, N, B, H, W) bool, the pairs that the norms are measured of; by default those in conflict. With those
            of other gradients at the same positions, the norms of the two can be compared.
    """
    pairs = _pairs(is_positive)
    products = _products(gradients)
    norms = torch.linalg.vector_norm(gradients, dim=2)
    lengths = norms[:, None] * norms[None]
    is_measured = pairs & (lengths > 0)
    cosines = torch.where(is_measured, products / lengths.where(is_measured, 1), 0)
    in_conflict = pairs & (products < 0)
    judged = in_conflict if judged is None else judged
    # a level that takes part in several pairs counts once
    positive = (gradients * judged.any(dim=1)[:, :, None]).sum(dim=0)
    background = (gradients * judged.any(dim=0)[:, :, None]).sum(dim=0)
    sums = torch.stack(
        [
            pairs.any(dim=0).any(dim=0).sum(),
            in_conflict.any(dim=0).any(dim=0).sum(),
            cosines.double().sum(),
            is_measured.sum(),
            judged.any(dim=0).any(dim=0).sum(),
            torch.linalg.vector_norm(positive, dim=1).double().sum(),
            torch.linalg.vector_norm(background, dim=1).double().sum(),
        ]
    )
    return Conflicts(is_positive[0].numel(), *sums.tolist())


def _pairs(is_positive: Tensor) -> Tensor:
    return is_positive[:, None] & ~is_positive[None]


def _products(gradients: Tensor) -> Tensor:
    """(N, N, B, H, W): scalar product over channels of each two levels' gradients."""
    return torch.einsum("nbchw,mbchw->nmbhw", gradients, gradients)
