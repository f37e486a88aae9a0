"""Maps of pyramid levels over their image: a page that places them by inches, colours, boxes by level."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pyrafuse.base.detections import Detections
from pyrafuse.visualization.figures import LEVEL_COLORS

# the paper's order of colours without jet's false edges; turbo's almost black ends would hide the image
_COLORS = ListedColormap(colormaps["turbo"](np.linspace(0.08, 0.94, 256)), name="turbo_without_ends")

# inches
_LONGEST_SIDE = 2.6
_GAP = 0.08
_TITLE = 0.28
_MARGIN = 0.35
_LEGEND = 1.4
_BAR = 0.85


class MapPage:
    """Places one image and below it rows of maps: pictures of one shape need no layout engine, and never collapse.

    Args:
        pixels: (H, W, ...) of the image that the maps cover; its shape is theirs.
        rows: Rows of maps.
        columns: Columns of maps.
        has_bar: Leave room for a colour bar at the right.
        has_top: Leave room for the image above.
        side_width: Inches kept free at the right of the image's legend, for `add_side`.
    """

    def __init__(
        self,
        pixels: NDArray[Any],
        *,
        rows: int,
        columns: int,
        has_bar: bool = False,
        has_top: bool = True,
        side_width: float = 0.0,
    ) -> None:
        scale = _LONGEST_SIDE / max(pixels.shape[:2])
        self._map_width, self._map_height = pixels.shape[1] * scale, pixels.shape[0] * scale
        content = columns * self._map_width + (columns - 1) * _GAP
        right = _LEGEND + side_width
        enlarged = min(1.7, max(1.2, (content - right) / self._map_width)) if has_top else 0.0
        self._top_width, self._top_height = enlarged * self._map_width, enlarged * self._map_height
        self._side_width = side_width
        self._rows = rows
        above = _TITLE + self._top_height + _GAP if has_top else 0.0
        self._first_row = above + _TITLE
        across = max(content + (_BAR if has_bar else 0), self._top_width + right if has_top else 0)
        self._width = _MARGIN + across + _GAP
        self._height = above + rows * (_TITLE + self._map_height) + _GAP
        self._content = content
        self.figure = Figure(figsize=(self._width, self._height))

    def add_top(self) -> Axes:
        """Axes of the image."""
        return self._add(_MARGIN, _TITLE, self._top_width, self._top_height)

    def add_side(self, label_width: float) -> Axes:
        """Axes at the right of the image's legend, ``label_width`` inches of them left free for labels."""
        left = _MARGIN + self._top_width + _LEGEND + label_width
        return self._add(left, _TITLE, self._side_width - label_width, self._top_height)

    def add_map(self, row: int, column: int) -> Axes:
        """Axes of a map."""
        left = _MARGIN + column * (self._map_width + _GAP)
        return self._add(left, self._row_top(row), self._map_width, self._map_height)

    def add_bar(self, picture: Any, meaning: str, ticks: Mapping[int, str] | None = None) -> None:
        """Draw the colour bar of ``picture`` beside all rows, with labels at its ``ticks``."""
        top, bottom = self._row_top(0), self._row_top(self._rows - 1) + self._map_height
        bar = self.figure.colorbar(picture, cax=self._add(_MARGIN + self._content + 0.15, top, 0.14, bottom - top))
        bar.set_label(meaning, fontsize=9)
        if ticks is not None:
            bar.set_ticks([*ticks], labels=[*ticks.values()])
        bar.ax.tick_params(labelsize=8)

    def label_row(self, row: int, text: str) -> None:
        """Write ``text`` upright at the left of a row."""
        middle = self._row_top(row) + self._map_height / 2
        self.figure.text(
            0.2 / self._width, 1 - middle / self._height, text, rotation=90, ha="center", va="center", fontsize=10,
            fontweight="bold",
        )  # fmt: skip

    def _row_top(self, row: int) -> float:
        return self._first_row + row * (self._map_height + _TITLE)

    def _add(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (left / self._width, 1 - (top + height) / self._height, width / self._width, height / self._height)
        )


def draw_detections(axes: Axes, pixels: NDArray[np.uint8], detections: Detections, strides: Sequence[int]) -> None:
    """The image with each box in the colour of the level that it came from, and how many each level found."""
    show(axes, pixels)
    boxes, levels = detections.boxes.cpu().numpy(), detections.levels.cpu().numpy()
    line = 1.8 if len(boxes) <= 30 else 1.0 if len(boxes) <= 150 else 0.6
    handles = []
    for level, stride in enumerate(strides):
        color = LEVEL_COLORS[level % len(LEVEL_COLORS)]
        own = boxes[levels == level]
        outline(axes, own, color, line)
        handles.append(Line2D([], [], color=color, linewidth=3, label=f"stride {stride}: {len(own)}"))
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), title="found by level", fontsize=9,
        title_fontsize=9, frameon=False,
    )  # fmt: skip
    axes.set_title(f"{len(boxes)} detections", fontsize=10, fontweight="bold")


def outline(axes: Axes, boxes: NDArray[np.floating[Any]], color: str, linewidth: float) -> None:
    """Draw the rims of ``boxes`` (N, 4) xyxy."""
    x1, y1, x2, y2 = boxes.reshape(-1, 4).T
    corners = np.stack([np.stack(corner, axis=1) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], axis=1)
    axes.add_collection(
        PolyCollection(list(corners), facecolors="none", edgecolors=color, linewidths=linewidth), autolim=False
    )  # fmt: skip


def draw_map(
    axes: Axes,
    pixels: NDArray[np.uint8],
    values: NDArray[np.floating[Any]],
    limits: tuple[float, float] | None = None,
    *,
    interpolation: str = "bilinear",
) -> Any:
    """``values`` (h, w) as colour over a grey ``pixels``; without ``limits`` from their own least to their greatest."""
    height, width = pixels.shape[:2]
    grey = pixels @ np.asarray([0.299, 0.587, 0.114])
    darkest, brightest = np.percentile(grey, (1, 99))
    span = max(float(brightest - darkest), 1.0)
    # black is kept for nothing: a dark image would swallow the colours
    show(axes, grey, cmap="gray", vmin=darkest - 0.6 * span, vmax=brightest)
    low, high = limits or (float(values.min()), float(values.max()))
    return axes.imshow(
        values, cmap=_COLORS, vmin=low, vmax=high, alpha=0.55, extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation=interpolation,
    )  # fmt: skip


def show(axes: Axes, pixels: NDArray[Any], **options: Any) -> None:
    """An image without ticks and frame."""
    axes.imshow(pixels, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
