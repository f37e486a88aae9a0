"""What errors cost, F1 against confidence, and scores against precision."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrafuse.visualization.curves import PANEL_SIZE, legend, pick_named
from pyrafuse.visualization.figures import LINE_COLORS, plain, quiet_axes

BAR_COLOR, LINE_COLOR = LINE_COLORS[0], LINE_COLORS[2]


def plot_gains(names: Sequence[str], gains: Sequence[float]) -> Figure:
    """What mending each kind of error would bring, a bar each with its figure.

    Args:
        names: Kind of each bar, from the top down.
        gains: Gain in AP of each.
    """
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(names)), gains, color=BAR_COLOR, height=0.65)
    axes.bar_label(bars, labels=[f"{gain:+.3f}" for gain in gains], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.invert_yaxis()
    quiet_axes(axes, title="Gain in AP if all errors of a kind were mended", x="AP")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=9, length=0)
    axes.set_xlim(min(0, *gains) * 1.2, max(0.01, *gains) * 1.2)
    return figure


def plot_f1(
    confidences: NDArray[np.float64],
    f1: NDArray[np.float64],
    f1_of_all: NDArray[np.float64],
    names: Sequence[str],
    best: Sequence[tuple[float, float]],
) -> Figure:
    """F1 over the least score that is kept, with a dot where each class is best.

    Args:
        confidences: (T,).
        f1: (K, T); NaN for a class without objects. Past ten classes the best and worst are named, the others grey.
        f1_of_all: (T,) all classes together.
        names: Name of each class.
        best: Confidence and F1 where each class, and last all together, are best; NaN for none.
    """
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    axes = figure.subplots()
    named, others = pick_named(np.array([value for _, value in best[:-1]]))
    for k in others:
        axes.plot(confidences, f1[k], color="#c8c8c8", linewidth=0.7)
    for color, k in zip(LINE_COLORS, named, strict=False):
        axes.plot(confidences, f1[k], color=color, linewidth=1.2, label=f"{plain(names[k])}  {best[k][0]:.2f}")
        axes.plot(*best[k], marker="o", markersize=4, color=color)
    axes.plot(confidences, f1_of_all, color="black", linewidth=2.4, label=f"all classes  {_number(best[-1][0])}")
    axes.plot(*best[-1], marker="o", markersize=6, color="black")
    quiet_axes(axes, title="F1 at IoU 0.50", x="least score that is kept", y="F1")
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    legend(axes, title="best score threshold", is_below=True)
    return figure


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def plot_calibration(
    counts: NDArray[np.int64], scores: NDArray[np.float64], precisions: NDArray[np.float64]
) -> tuple[Figure, Figure]:
    """The reliability diagram: share of right detections beside their score; and how many each range holds.

    Args:
        counts: (B,) detections of each range of scores.
        scores: (B,) their mean score; NaN for none.
        precisions: (B,) share that is right; NaN for none.
    """
    edges = np.linspace(0, 1, len(counts) + 1)
    width = edges[1] - edges[0]
    reliability, histogram = (Figure(figsize=PANEL_SIZE, layout="constrained") for _ in range(2))
    axes = reliability.subplots()
    axes.bar(
        edges[:-1], np.nan_to_num(precisions), width * 0.94, align="edge", color=BAR_COLOR, label="share that is right"
    )
    axes.plot([0, 1], [0, 1], color="#606060", linewidth=1, linestyle="--", label="scores that can be believed")
    axes.plot(scores, precisions, color=LINE_COLOR, marker="o", markersize=5, linewidth=1.2, label="at the mean score")
    quiet_axes(axes, title="Share of right detections at each score", x="score", y="precision at IoU 0.50")
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    legend(axes, is_below=True)
    axes = histogram.subplots()
    bars = axes.bar(edges[:-1], counts, width * 0.94, align="edge", color=BAR_COLOR)
    axes.bar_label(bars, labels=[f"{count:,}" for count in counts.tolist()], fontsize=8)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, max(10, int(counts.max(initial=0))) * 3)
    quiet_axes(axes, title="Detections at each score", x="score", y="detections")
    axes.set_xlim(0, 1.005)
    return reliability, histogram
