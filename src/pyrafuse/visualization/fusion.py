"""Which pyramid level a detector listens to, and where: heat maps of fusion weights over the image.

Figure 3 of Liu et al., "Learning Spatial Fusion for Single-Shot Object Detection" (ASFF), arXiv:1911.09516.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from pyrafuse.core.detections import Detections
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


def plot_fusion(
    image: Tensor,
    detections: Detections,
    weights: Sequence[NDArray[np.floating[Any]]] | None,
    fused: Sequence[NDArray[np.floating[Any]]] | None,
    strides: Sequence[int],
) -> Figure:
    """Detections coloured by pyramid level, and below, a row an output level, the weights that fused it.

    Args:
        image: (3, H, W) uint8 RGB that the maps cover: the network's input, or the image itself where the input was
            stretched from it.
        detections: Boxes in pixels of ``image``.
        weights: For each output level, finest first, (S, h, w) in 0..1: the weight of each source level at each
            position. None for a neck without such weights.
        fused: For each output level (h, w), the strength of the fused features; each drawn on a scale of its own.
        strides: Pixels a cell of each level, finest first; names the levels.

    Raises:
        ValueError: If weights, fused maps and strides disagree in number or shape.
    """
    _check(weights, fused, strides)
    pixels = image.cpu().permute(1, 2, 0).numpy()
    page = _Page(
        map_size=_fit(pixels.shape[1], pixels.shape[0], _LONGEST_SIDE),
        rows=len(weights) if weights else int(fused is not None),
        columns=len(strides) + int(bool(weights) and fused is not None),
        has_bar=bool(weights),
    )
    _draw_detections(page.add_top(), pixels, detections, strides)
    for level, level_weights in enumerate(weights or ()):
        for source, weight in enumerate(level_weights):
            axes = page.add_map(level, source)
            picture = _draw_map(axes, pixels, weight, limits=(0, 1))
            axes.set_title(f"from stride {strides[source]}, mean {weight.mean():.2f}", fontsize=8)
            if not level and not source:
                bar = page.figure.colorbar(picture, cax=page.add_bar())
                bar.set_label("weight of the source level", fontsize=9)
                bar.ax.tick_params(labelsize=8)
        page.label_row(level, f"stride {strides[level]}")
    for level, strength in enumerate(fused or ()):
        axes = page.add_map(level, len(strides)) if weights else page.add_map(0, level)
        _draw_map(axes, pixels, strength)
        axes.set_title(f"fused at stride {strides[level]}, own scale", fontsize=8)
    return page.figure


class _Page:
    """Places the image and the maps by inches: pictures of one shape need no layout engine, and never collapse."""

    def __init__(self, *, map_size: tuple[float, float], rows: int, columns: int, has_bar: bool) -> None:
        self._map_width, self._map_height = map_size
        content = columns * self._map_width + (columns - 1) * _GAP
        scale = min(1.7, max(1.2, (content - _LEGEND) / self._map_width))
        self._top_width, self._top_height = scale * self._map_width, scale * self._map_height
        self._rows = rows
        self._width = _MARGIN + max(content + (_BAR if has_bar else 0), self._top_width + _LEGEND) + _GAP
        self._height = _TITLE + self._top_height + rows * (_TITLE + self._map_height) + 2 * _GAP
        self._content = content
        self.figure = Figure(figsize=(self._width, self._height))

    def add_top(self) -> Axes:
        return self._add(_MARGIN, _TITLE, self._top_width, self._top_height)

    def add_map(self, row: int, column: int) -> Axes:
        left = _MARGIN + column * (self._map_width + _GAP)
        return self._add(left, self._row_top(row), self._map_width, self._map_height)

    def add_bar(self) -> Axes:
        top, bottom = self._row_top(0), self._row_top(self._rows - 1) + self._map_height
        return self._add(_MARGIN + self._content + 0.15, top, 0.14, bottom - top)

    def label_row(self, row: int, text: str) -> None:
        middle = self._row_top(row) + self._map_height / 2
        self.figure.text(
            0.2 / self._width, 1 - middle / self._height, text, rotation=90, ha="center", va="center", fontsize=10,
            fontweight="bold",
        )  # fmt: skip

    def _row_top(self, row: int) -> float:
        return 2 * _TITLE + self._top_height + _GAP + row * (self._map_height + _TITLE)

    def _add(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.figure.add_axes(
            (left / self._width, 1 - (top + height) / self._height, width / self._width, height / self._height)
        )


def _fit(width: int, height: int, longest: float) -> tuple[float, float]:
    scale = longest / max(width, height)
    return width * scale, height * scale


def _check(
    weights: Sequence[NDArray[np.floating[Any]]] | None,
    fused: Sequence[NDArray[np.floating[Any]]] | None,
    strides: Sequence[int],
) -> None:
    for what, maps in (("weights", weights), ("fused", fused)):
        if maps is not None and len(maps) != len(strides):
            raise ValueError(f"{what} of {len(maps)} levels, but {len(strides)} strides {tuple(strides)}")
    for level_weights in weights or ():
        if level_weights.ndim != 3 or len(level_weights) != len(strides):
            raise ValueError(f"weights must be ({len(strides)} levels, h, w), got shape {level_weights.shape}")
    for strength in fused or ():
        if strength.ndim != 2:
            raise ValueError(f"fused maps must be (h, w), got shape {strength.shape}")


def _draw_detections(axes: Axes, pixels: NDArray[np.uint8], detections: Detections, strides: Sequence[int]) -> None:
    _show(axes, pixels)
    boxes, levels = detections.boxes.cpu().numpy(), detections.levels.cpu().numpy()
    line = 1.8 if len(boxes) <= 30 else 1.0 if len(boxes) <= 150 else 0.6
    handles = []
    for level, stride in enumerate(strides):
        color = LEVEL_COLORS[level % len(LEVEL_COLORS)]
        x1, y1, x2, y2 = boxes[levels == level].T
        corners = np.stack([np.stack([x1, y1], 1), np.stack([x2, y1], 1), np.stack([x2, y2], 1),
                            np.stack([x1, y2], 1)], 1)  # fmt: skip
        axes.add_collection(
            PolyCollection(list(corners), facecolors="none", edgecolors=color, linewidths=line), autolim=False
        )  # fmt: skip
        handles.append(Line2D([], [], color=color, linewidth=3, label=f"stride {stride}: {len(corners)}"))
    axes.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), title="found by level", fontsize=9,
        title_fontsize=9, frameon=False,
    )  # fmt: skip
    axes.set_title(f"{len(boxes)} detections", fontsize=10, fontweight="bold")


def _draw_map(
    axes: Axes, pixels: NDArray[np.uint8], values: NDArray[np.floating[Any]], limits: tuple[float, float] | None = None
) -> Any:
    """``values`` as colour over a grey ``pixels``; without ``limits`` from their own least to their greatest."""
    height, width = pixels.shape[:2]
    grey = pixels @ np.asarray([0.299, 0.587, 0.114])
    darkest, brightest = np.percentile(grey, (1, 99))
    span = max(float(brightest - darkest), 1.0)
    # black is kept for nothing: a dark image would swallow the colours
    _show(axes, grey, cmap="gray", vmin=darkest - 0.6 * span, vmax=brightest)
    low, high = limits or (float(values.min()), float(values.max()))
    return axes.imshow(
        values, cmap=_COLORS, vmin=low, vmax=high, alpha=0.55, extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )  # fmt: skip


def _show(axes: Axes, pixels: NDArray[Any], **options: Any) -> None:
    axes.imshow(pixels, **options)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
