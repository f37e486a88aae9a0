"""What each source level learns from each output level over one image, and where these lessons conflict.

Section 3.4 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection" (ASFF), arXiv:1911.09516.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrafuse.visualization.maps import MapPage, draw_map, outline

DECADES = 4
"""Norms of gradients are drawn by their logarithm, down to so many powers of ten below the strongest of the row."""


def plot_gradients(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    norms: Sequence[NDArray[np.floating[Any]]],
    conflicts: Sequence[NDArray[np.bool_]],
    source_strides: Sequence[int],
    output_strides: Sequence[int],
) -> Figure:
    """A row a source level: the norm of the gradient from each output level, and the positions in conflict.

    Args:
        pixels: (H, W, 3) uint8 RGB that the maps cover.
        boxes: (G, 4) xyxy in pixels of ``pixels``, the objects; drawn on every map.
        norms: For each of the S source levels, finest first, (N, h, w): a map an output level.
        conflicts: For each source level (h, w): whether the position is in conflict.
        source_strides: Pixels a cell of each source level.
        output_strides: Pixels a cell of each output level.

    Raises:
        ValueError: If norms, conflicts and strides disagree in number or shape.
    """
    if not len(norms) == len(conflicts) == len(source_strides):
        raise ValueError(
            f"norms of {len(norms)} and conflicts of {len(conflicts)} source levels, but {len(source_strides)} strides"
        )
    for level_norms, conflict in zip(norms, conflicts, strict=True):
        if level_norms.shape != (len(output_strides), *conflict.shape):
            raise ValueError(
                f"norms must be ({len(output_strides)} output levels, {conflict.shape}), got shape {level_norms.shape}"
            )
    page = MapPage(pixels, rows=len(norms), columns=len(output_strides) + 1, has_bar=True, has_top=False)
    for source, (level_norms, conflict) in enumerate(zip(norms, conflicts, strict=True)):
        strongest = max(float(level_norms.max()), np.finfo(np.float32).tiny)
        decades = np.log10(np.maximum(level_norms / strongest, 10.0**-DECADES))
        for output, values in enumerate(decades):
            axes = page.add_map(source, output)
            picture = draw_map(axes, pixels, values, limits=(-DECADES, 0), interpolation="nearest")
            axes.set_title(f"from output of stride {output_strides[output]}", fontsize=8)
            outline(axes, boxes, "white", 0.8)
            if not source and not output:
                ticks = {power: f"1e{power}" if power else "1" for power in range(-DECADES, 1)}
                page.add_bar(picture, "norm of the gradient, by the strongest of the row", ticks)
        axes = page.add_map(source, len(output_strides))
        draw_map(axes, pixels, conflict.astype(np.float32), limits=(0, 1), interpolation="nearest")
        axes.set_title(f"in conflict: {100 * conflict.mean():.1f} %", fontsize=8)
        outline(axes, boxes, "white", 0.8)
        page.label_row(source, f"stride {source_strides[source]}")
    return page.figure
