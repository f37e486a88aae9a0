"""The course of many fusion weights: a row a weight, a column an epoch, red above an equal share and blue below."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pyrafuse.visualization.figures import plain, quiet_axes

MAX_WEIGHT_CURVES = 12
"""More weights than these are drawn as rows: their curves would hide each other."""

_ROW = 0.14  # inches
_AROUND = 0.9  # inches of title and labels

Weights = Mapping[tuple[str, str], NDArray[np.float64]]
"""Values of each weight by what is fused and its source."""


def height_of(num_rows: int) -> float:
    """Inches that so many rows and their labels take."""
    return _AROUND + _ROW * num_rows


def split_rows(weights: Weights) -> tuple[Weights, Weights]:
    """Two halves to stand side by side; the weights of one fusion stay together."""
    pairs = [*weights]
    starts = [row for row in range(1, len(pairs)) if pairs[row][0] != pairs[row - 1][0]]
    middle = min(starts, key=lambda row: abs(2 * row - len(pairs)), default=len(pairs))
    return {pair: weights[pair] for pair in pairs[:middle]}, {pair: weights[pair] for pair in pairs[middle:]}


def span_of(weights: Weights) -> float:
    """The greatest distance from an equal share, as a multiple of it, of these weights; 0.1 at least."""
    distances = np.abs(_to_equal_shares(weights) - 1)
    return max(0.1, float(distances[np.isfinite(distances)].max(initial=0)))


def _to_equal_shares(weights: Weights) -> NDArray[np.float64]:
    """(W, E): each weight times the number of its fusion's sources."""
    counts = Counter(fused for fused, _ in weights)
    return np.stack([values * counts[fused] for (fused, _), values in weights.items()])


def draw_rows(axes: Axes, weights: Weights, points: NDArray[np.float64], *, title: str, x: str, span: float) -> None:
    """Draw the weights in ``axes``, the last value of each at its right.

    Args:
        axes: Where to draw.
        weights: One value a point each, NaN where it was not measured.
        points: Places on the horizontal axis, ascending.
        title: Title of the axes.
        x: What the points count.
        span: Distance from an equal share that has the strongest colour, as `span_of` says.
    """
    pairs: Sequence[tuple[str, str]] = [*weights]
    is_known = np.isfinite(points)
    values, relative = np.stack([*weights.values()])[:, is_known], _to_equal_shares(weights)[:, is_known]
    points = points[is_known]
    sides = np.concatenate([points[:1] - 0.5, (points[1:] + points[:-1]) / 2, points[-1:] + 0.5])
    picture = axes.pcolormesh(
        sides,
        np.arange(len(pairs) + 1) - 0.5,
        np.ma.masked_invalid(relative),
        cmap="RdBu_r",
        vmin=1 - span,
        vmax=1 + span,
    )
    quiet_axes(axes, title=title, x=x)
    axes.grid(visible=False)
    axes.set_yticks(range(len(pairs)), [plain(f"{fused} from {source}") for fused, source in pairs], fontsize=7)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    for row, (pair, series) in enumerate(zip(pairs, values, strict=True)):
        if row and pairs[row - 1][0] != pair[0]:
            axes.axhline(row - 0.5, color="#808080", linewidth=0.6)
        if len(last := series[np.isfinite(series)]):
            axes.text(1.01, row, f"{last[-1]:.2f}", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
    bar = axes.figure.colorbar(
        picture, ax=axes, label="weight as a multiple of an equal share", pad=0.09, fraction=0.04
    )
    bar.ax.tick_params(labelsize=7)
