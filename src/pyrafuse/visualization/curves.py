"""Precision over recall, and confusion."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pyrafuse.visualization.figures import LINE_COLORS, plain, quiet_axes

MAX_NAMED_CURVES = 10
MAX_SHARED_CLASSES = 10
"""Up to so many classes the cells of a confusion matrix show shares beside the counts."""

MAX_COUNTED_CLASSES = 20
"""With more classes the matrix grows with their number, so that the counts stay legible."""

MAX_COUNTS = 1000
"""Cells whose count is written, the highest ones."""

PANEL_SIZE = (5.2, 3.5)
"""Inches of a figure with one panel, its legend aside: letters are legible where it is shown 400 pixels wide."""

_LEGEND_LETTERS = 66  # that stand side by side below a panel


def plot_precision_recall(precision: NDArray[np.floating[Any]], names: Sequence[str]) -> Figure:
    """Precision over recall: at IoU 0.50 for each class, and for all classes at every IoU.

    Args:
        precision: (T, R, K) precision at T IoUs from 0.50 to 0.95 and R recalls from 0 to 1; NaN for a class without
            objects. `EvaluationResult.precision` is one.
        names: Name of each of the K classes; past ten the strongest and weakest are named, the others grey.
    """
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    by_class, by_iou = figure.subplots(1, 2)
    _draw_each_class(by_class, precision, names)
    _draw_each_iou(by_iou, precision)
    legend(by_class, title="AP50", is_beside=True)
    legend(by_iou, title="IoU  AP", is_beside=True)
    return figure


def precision_recall_panels(precision: NDArray[np.floating[Any]], names: Sequence[str]) -> tuple[Figure, Figure]:
    """The two halves of `plot_precision_recall` as figures of their own, legible where they are 400 pixels wide."""
    by_class, by_iou = (
        Figure(figsize=PANEL_SIZE, layout="constrained"),
        Figure(figsize=PANEL_SIZE, layout="constrained"),
    )
    _draw_each_class(by_class.subplots(), precision, names)
    _draw_each_iou(by_iou.subplots(), precision)
    legend(by_class.axes[0], title="AP50", is_below=True)
    legend(by_iou.axes[0], title="IoU  AP", is_below=True)
    return by_class, by_iou


def _draw_each_class(axes: Axes, precision: NDArray[np.floating[Any]], names: Sequence[str]) -> None:
    recall = np.linspace(0, 1, precision.shape[1])
    ap50 = _mean(precision[0], axis=0)
    named, others = pick_named(ap50)
    for k in others:
        axes.plot(recall, precision[0, :, k], color="#c8c8c8", linewidth=0.7)
    for color, k in zip(LINE_COLORS, named, strict=False):
        axes.plot(recall, precision[0, :, k], color=color, linewidth=1.2, label=f"{plain(names[k])}  {ap50[k]:.3f}")
    if named:
        overall = _mean(precision[0], axis=1)
        axes.plot(recall, overall, color="black", linewidth=2.4, label=f"all classes  {np.nanmean(ap50):.3f}")
    quiet_axes(axes, title="Each class at IoU 0.50", x="recall", y="precision")
    _from_0_to_1(axes)


def pick_named(values: NDArray[np.floating[Any]]) -> tuple[list[int], list[int]]:
    """The classes whose curves have a colour and a name, the highest value first, and those that stay grey.

    Those without a value are in neither.
    """
    ranked: list[int] = [k for k in np.argsort(-values, kind="stable").tolist() if not np.isnan(values[k])]
    if len(ranked) <= MAX_NAMED_CURVES:
        return ranked, []
    half = MAX_NAMED_CURVES // 2
    return [*ranked[:half], *ranked[-half:]], ranked[half:-half]


def _draw_each_iou(axes: Axes, precision: NDArray[np.floating[Any]]) -> None:
    recall = np.linspace(0, 1, precision.shape[1])
    ious = np.linspace(0.5, 0.95, precision.shape[0])
    for t, iou in enumerate(ious):
        curve = _mean(precision[t], axis=1)
        if not np.isnan(curve).all():
            color = colormaps["viridis"](t / max(len(ious) - 1, 1))
            axes.plot(recall, curve, color=color, linewidth=1.4, label=f"{iou:.2f}  {np.nanmean(curve):.3f}")
    quiet_axes(axes, title="All classes at each IoU", x="recall", y="precision")
    _from_0_to_1(axes)


def _from_0_to_1(axes: Axes) -> None:
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)


def plot_confusion(
    confusion: NDArray[np.integer[Any]], names: Sequence[str], *, confidence: float | None = None, iou: float = 0.5
) -> Figure:
    """What each object was taken for: the share of its row as colour, and counts.

    Args:
        confusion: (K+1, K+1) counts; a row a true class, a column a predicted one, background last.
        names: Name of each of the K classes.
        confidence: Detections scoring less were not counted; None where that is not known, and then not told.
        iou: Overlap from which a detection was held to be of an object.
    """
    labels = [plain(name) for name in (*names, "background")]
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    is_shared, is_dense = len(names) <= MAX_SHARED_CLASSES, len(names) > MAX_COUNTED_CLASSES
    side = float(np.clip(2.5 + (0.6 if is_shared else 0.42) * len(labels), 4.5, 16))
    if is_dense:  # a cell of the size that a count of three digits needs
        side = float(np.clip(0.26 * len(labels), 8, 24))
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(np.ma.masked_equal(share, 0), cmap="Blues", vmin=0, vmax=1)
    size = float(np.clip(50 * side / len(labels), 2, 6) if is_dense else np.clip(220 / len(labels), 4, 9))
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.set_xlabel("predicted", fontsize=10)
    axes.set_ylabel("true", fontsize=10)
    counted = f"at IoU {iou:.2f} or more" + ("" if confidence is None else f", confidence {confidence:.2f} or more")
    axes.set_title(f"What each object was taken for\n{counted}", loc="left", fontsize=10, fontweight="bold")
    border = len(labels) - 1.5  # sets the background apart
    axes.axhline(border, color="#808080", linewidth=0.8)
    axes.axvline(border, color="#808080", linewidth=0.8)
    least = max(1, np.sort(confusion, axis=None)[-MAX_COUNTS:][0])  # thousands of texts would take a minute
    for row, column in np.argwhere(confusion >= least).tolist():
        color = "white" if share[row, column] > 0.55 else "black"
        text = str(confusion[row, column]) + (f"\n{share[row, column]:.0%}" if is_shared else "")
        axes.text(column, row, text, color=color, fontsize=size, ha="center", va="center").set_in_layout(False)
    figure.colorbar(picture, ax=axes, label="share of the row", fraction=0.046, pad=0.02)
    return figure


def legend(axes: Axes, *, title: str | None = None, is_beside: bool = False, is_below: bool = False) -> None:
    """A legend where it covers least, or ``is_beside`` or ``is_below`` the axes, where it covers nothing."""
    labels = axes.get_legend_handles_labels()[1]
    if not labels:
        return
    place: dict[str, Any] = {}
    if is_beside:
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.02), "frameon": False}
    elif is_below:
        _legend_below(axes, labels, title)
        return
    axes.legend(title=title, fontsize=8, title_fontsize=8, **place)


def _legend_below(axes: Axes, labels: Sequence[str], title: str | None) -> None:
    """A legend below a figure of one panel, which grows by it."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    columns = max(1, min(len(labels), _LEGEND_LETTERS // (max(map(len, labels)) + 6)))
    rows = -(-len(labels) // columns) + (title is not None)
    figure.set_size_inches(PANEL_SIZE[0], PANEL_SIZE[1] + 0.17 * rows)
    figure.legend(
        title=title, fontsize=8, title_fontsize=8, loc="outside lower center", frameon=False, ncols=columns
    )  # fmt: skip


def _mean(values: ArrayLike, *, axis: int) -> NDArray[np.float64]:
    """Mean of what is defined; NaN, silently, where nothing is."""
    values = np.asarray(values, dtype=np.float64)
    counts = (~np.isnan(values)).sum(axis=axis)
    return np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan)
