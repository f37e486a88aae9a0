"""Where classification and regression of detections look, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pyrafuse.base.detections import Detections
from pyrafuse.visualization.figures import LEVEL_COLORS, plain
from pyrafuse.visualization.maps import MapPage, corners_of, draw_map, show


def plot_cams(
    image: Tensor,
    detections: Detections,
    classification: Sequence[NDArray[np.floating[Any]]],
    regression: Sequence[NDArray[np.floating[Any]]],
    strides: Sequence[int],
) -> Figure:
    """A row a detection: its box, what its class rests on, what its box rests on.

    Args:
        image: (3, H, W) uint8 RGB that the maps cover.
        detections: N, boxes in pixels of ``image``.
        classification: N maps (h, w), 0..1.
        regression: Likewise.
        strides: Pixels a cell of each level, finest first.

    Raises:
        ValueError: If there are not as many maps as detections, or there is none.
    """
    if not len(detections) == len(classification) == len(regression) > 0:
        raise ValueError(
            f"{len(detections)} detections, {len(classification)} maps of classification and {len(regression)} of "
            "regression: one each is needed, and one at least"
        )
    pixels = image.cpu().permute(1, 2, 0).numpy()
    page = MapPage(pixels, rows=len(detections), columns=3, has_bar=True, has_top=False)
    corners = corners_of(detections.boxes.cpu().numpy())
    for row, (label, score, level) in enumerate(
        zip(detections.labels.tolist(), detections.scores.tolist(), detections.levels.tolist(), strict=True)
    ):
        color = LEVEL_COLORS[level % len(LEVEL_COLORS)]
        axes = page.add_map(row, 0)
        show(axes, pixels)
        _outline(axes, corners[row], color)
        name = plain(f"{row + 1} {detections.name_of(label)} {score:.2f}")
        axes.set_title(f"{name}, stride {strides[level]}", fontsize=8)
        for column, (title, maps) in enumerate((("class", classification), ("box", regression)), start=1):
            axes = page.add_map(row, column)
            picture = draw_map(axes, pixels, maps[row], limits=(0, 1))
            axes.set_title(title, fontsize=8)
            _outline(axes, corners[row], "white")
            if not row and column == 1:
                bar = page.figure.colorbar(picture, cax=page.add_bar())
                bar.set_label("Grad-CAM, own scale", fontsize=9)
                bar.ax.tick_params(labelsize=8)
    return page.figure


def _outline(axes: Axes, corners: NDArray[np.floating[Any]], color: str) -> None:
    axes.add_collection(
        PolyCollection([corners], facecolors="none", edgecolors=color, linewidths=1.4), autolim=False
    )  # fmt: skip
