"""Where classification and regression of detections look, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.detections import Detections
from pyrafuse.visualization.figures import LEVEL_COLORS, plain
from pyrafuse.visualization.maps import MapPage, draw_map, outline, show


def plot_cams(
    pixels: NDArray[np.uint8],
    detections: Detections,
    classification: Sequence[NDArray[np.floating[Any]]],
    regression: Sequence[NDArray[np.floating[Any]]],
    strides: Sequence[int],
) -> Figure:
    """A row a detection: its box, what its class rests on, what its box rests on.

    Args:
        pixels: (H, W, 3) uint8 RGB that the maps cover.
        detections: N, boxes in pixels of ``pixels``.
        classification: N maps (h, w), 0..1.
        regression: N maps (h, w), 0..1.
        strides: Pixels a cell of each level, finest first.

    Raises:
        ValueError: If there are not as many maps as detections, or there is none.
    """
    if not len(detections) == len(classification) == len(regression) > 0:
        raise ValueError(
            f"{len(detections)} detections, {len(classification)} maps of classification and {len(regression)} of "
            "regression: one each is needed, and one at least"
        )
    page = MapPage(pixels, rows=len(detections), columns=3, has_bar=True, has_top=False)
    boxes = to_numpy(detections.boxes)
    for row, (label, score, level) in enumerate(
        zip(detections.labels.tolist(), detections.scores.tolist(), detections.levels.tolist(), strict=True)
    ):
        color = LEVEL_COLORS[level % len(LEVEL_COLORS)]
        axes = page.add_map(row, 0)
        show(axes, pixels)
        outline(axes, boxes[row], color, 1.4)
        name = plain(f"{row + 1} {detections.name_of(label)} {score:.2f}")
        axes.set_title(f"{name}, stride {strides[level]}", fontsize=8)
        for column, (title, maps) in enumerate((("class", classification), ("box", regression)), start=1):
            axes = page.add_map(row, column)
            picture = draw_map(axes, pixels, maps[row], limits=(0, 1))
            axes.set_title(title, fontsize=8)
            outline(axes, boxes[row], "white", 1.4)
            if not row and column == 1:
                page.add_bar(picture, "Grad-CAM, own scale")
    return page.figure
