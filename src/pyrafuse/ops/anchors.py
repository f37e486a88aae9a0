"""Anchors and points: shapes of every cell, laid over the maps of a pyramid.

Shapes are (S, 2), width and height in pixels; laid boxes are xyxy in pixels, ordered by y, x, then shape.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def octave_scales(base: float, per_octave: int) -> tuple[float, ...]:
    """``per_octave`` scales from ``base`` to below twice of it, in equal ratios (arXiv:1708.02002, section 4)."""
    return tuple(base * 2 ** (i / per_octave) for i in range(per_octave))


def anchor_shapes(stride: float, *, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Shapes (S, 2) of a level in pixels: for each ratio (height to width) each scale, in strides.

    Raises:
        ValueError: If a scale, a ratio or the stride is not positive.
    """
    if not scales or not ratios or min(*scales, *ratios, stride) <= 0:
        raise ValueError(f"anchors need positive scales, ratios and stride, got {scales}, {ratios} and {stride}")
    roots = torch.tensor(tuple(ratios), dtype=torch.float32).sqrt()[:, None]
    sides = torch.tensor(tuple(scales), dtype=torch.float32)
    return torch.stack((stride * (1 / roots) * sides, stride * roots * sides), dim=-1).view(-1, 2)


def ssd_shapes(
    size: int, *, ratios: Sequence[Sequence[float]], coverage: tuple[float, float] = (0.15, 0.9)
) -> tuple[Tensor, ...]:
    """Shapes (S, 2) of each level of SSD (arXiv:1512.02325, section 2.2, and the tables of its code).

    A square of the level's size, one of the geometric mean with the next level's, then 1:r and r:1 for each ratio.

    Args:
        size: Side of the square input in pixels.
        ratios: For each level, finest first, the ratios above 1.
        coverage: Least and greatest size of the second and the last level, as a share of ``size``; the first level
            has its own: 7 % with 0.15 and 10 % with 0.2 at 300 px, 4 % with 0.1 and 7 % with 0.15 at 512 px.

    Raises:
        ValueError: If there are fewer than three levels, or the least size is not one of these.
    """
    smallest = {(300, 15): 7, (300, 20): 10, (512, 10): 4, (512, 15): 7}
    low, high = (round(100 * share) for share in coverage)
    if len(ratios) < 3 or (size, low) not in smallest:
        known = ", ".join(f"{s} px with {share / 100}" for s, share in smallest)
        raise ValueError(
            f"SSD has three levels or more and a first size for {known}; got {len(ratios)} levels, {size} px with "
            f"{coverage[0]}"
        )
    step = (high - low) // (len(ratios) - 2)
    shares = [smallest[size, low], *(low + i * step for i in range(len(ratios)))]
    return multibox_shapes([size * share // 100 for share in shares], ratios=ratios)  # whole pixels, as in its code


def multibox_shapes(sizes: Sequence[float], *, ratios: Sequence[Sequence[float]]) -> tuple[Tensor, ...]:
    """Shapes (S, 2) of each level in pixels, in the order of SSD (arXiv:1512.02325, section 2.2) and M2Det.

    A square of the level's size, one of the geometric mean with the next level's, then r:1 and 1:r for each ratio.

    Args:
        sizes: Sizes of each level, finest first, and one more behind the last, in pixels.
        ratios: For each level, those above 1.

    Raises:
        ValueError: If ``sizes`` are not one more than there are levels, or not positive.
    """
    if len(sizes) != len(ratios) + 1 or min(sizes) <= 0:
        raise ValueError(f"{len(ratios)} levels need {len(ratios) + 1} positive sizes, got {tuple(sizes)}")
    levels = []
    for least, greatest, extra in zip(sizes, sizes[1:], ratios, strict=False):
        shapes = [(least, least), (math.sqrt(least * greatest),) * 2]
        for ratio in extra:
            long, short = least * math.sqrt(ratio), least / math.sqrt(ratio)
            shapes += [(long, short), (short, long)]
        levels.append(torch.tensor(shapes, dtype=torch.float32))
    return tuple(levels)


Stride = float | tuple[float, float]
"""Pixels a cell: of both sides, or down and across."""


def lay_points(
    size: tuple[int, int], stride: Stride, *, offset: float = 0.5, device: torch.device | None = None
) -> Tensor:
    """(H * W, 2) x and y in pixels of the point of each cell; ``size`` is height and width in cells."""
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    # double: with a stride that is no whole number, one rounding less
    y = ((torch.arange(size[0], device=device, dtype=torch.float64) + offset) * down).float()
    x = ((torch.arange(size[1], device=device, dtype=torch.float64) + offset) * across).float()
    return torch.stack((x.expand(size[0], -1), y[:, None].expand(-1, size[1])), dim=-1).view(-1, 2)


def lay_anchors(shapes: Tensor, size: tuple[int, int], stride: Stride, *, offset: float = 0.0) -> Tensor:
    """Boxes (H * W * S, 4) of ``shapes`` (S, 2) in every cell of a map of ``size``, height and width in cells.

    Args:
        shapes: Width and height in pixels.
        size: Size of the map.
        stride: Pixels a cell.
        offset: Where in its cell an anchor has its centre: 0 for RetinaNet and its heirs, 0.5 for SSD and YOLO.
    """
    base = torch.cat((-0.5 * shapes, 0.5 * shapes), dim=-1)
    shifts = lay_points(size, stride, offset=offset, device=shapes.device).repeat(1, 2)
    return (shifts[:, None] + base).view(-1, 4)
