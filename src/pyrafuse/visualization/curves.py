"""Precision over recall, confusion, and the course of a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.visualization.figures import LEVEL_COLORS, LINE_COLORS, plain, quiet_axes

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
_SMOOTHED_FROM = 200  # points; below, each one is worth seeing


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
    _legend(by_class, title="AP50", is_beside=True)
    _legend(by_iou, title="IoU  AP", is_beside=True)
    return figure


def precision_recall_panels(precision: NDArray[np.floating[Any]], names: Sequence[str]) -> tuple[Figure, Figure]:
    """The two halves of `plot_precision_recall` as figures of their own, legible where they are 400 pixels wide."""
    by_class, by_iou = (
        Figure(figsize=PANEL_SIZE, layout="constrained"),
        Figure(figsize=PANEL_SIZE, layout="constrained"),
    )
    _draw_each_class(by_class.subplots(), precision, names)
    _draw_each_iou(by_iou.subplots(), precision)
    _legend(by_class.axes[0], title="AP50", is_below=True)
    _legend(by_iou.axes[0], title="IoU  AP", is_below=True)
    return by_class, by_iou


def _draw_each_class(axes: Axes, precision: NDArray[np.floating[Any]], names: Sequence[str]) -> None:
    recall = np.linspace(0, 1, precision.shape[1])
    ap50 = _mean(precision[0], axis=0)
    ranked: list[int] = [k for k in np.argsort(-ap50, kind="stable").tolist() if not np.isnan(ap50[k])]
    named = ranked
    if len(ranked) > MAX_NAMED_CURVES:
        half = MAX_NAMED_CURVES // 2
        named = [*ranked[:half], *ranked[-half:]]
        for k in ranked[half:-half]:
            axes.plot(recall, precision[0, :, k], color="#c8c8c8", linewidth=0.7)
    for color, k in zip(LINE_COLORS, named, strict=False):
        axes.plot(recall, precision[0, :, k], color=color, linewidth=1.2, label=f"{plain(names[k])}  {ap50[k]:.3f}")
    if ranked:
        overall = _mean(precision[0], axis=1)
        axes.plot(recall, overall, color="black", linewidth=2.4, label=f"all classes  {np.nanmean(ap50):.3f}")
    quiet_axes(axes, title="Each class at IoU 0.50", x="recall", y="precision")
    _from_0_to_1(axes)


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


def plot_training(history: Mapping[str, Sequence[float]], *, x: str = "epoch") -> Figure:
    """Losses, AP, learning rate, and what each level does in one training, a panel each.

    The key decides the panel, its part before the last "/" aside: ``positives`` in it; ``gradient`` and ``level`` in
    it; ``loss`` and ``level`` in it, each part ``level/.../loss_iou`` in a panel of its own; ``loss`` in it;
    ``fusion/OUTPUT/from_SOURCE``; ``ap...`` or ``ar_...``; ``lr...`` or ``learning_rate...``. Other keys are not
    drawn; panels without a curve are left out.

    Args:
        history: One value a point of ``history[x]``, NaN where a quantity was not measured; without that key the
            points are counted from 1.
        x: Key of the horizontal axis.

    Raises:
        PyrafuseError: If no key belongs to a panel, or a series is not as long as ``history[x]``.
    """
    panels = _sort_into_panels(history, x)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.6 * columns, 3.4 * rows), layout="constrained")
    for place, (title, curves) in enumerate(panels.items(), start=1):
        _draw_panel(figure.add_subplot(rows, columns, place), title, curves, history, x)
    return figure


def training_panels(history: Mapping[str, Sequence[float]], *, x: str = "epoch") -> dict[str, Figure]:
    """The panels of `plot_training` as figures of their own, by their title."""
    figures = {}
    for title, curves in _sort_into_panels(history, x).items():
        figures[title] = Figure(figsize=PANEL_SIZE, layout="constrained")
        _draw_panel(figures[title].subplots(), title, curves, history, x, is_alone=True)
    return figures


_Curves = dict[str, NDArray[np.float64]]


def _sort_into_panels(history: Mapping[str, Sequence[float]], x: str) -> dict[str, _Curves]:
    panels: dict[str, _Curves] = {title: {} for title in PANELS}
    for key, values in history.items():
        title = _panel_of(key)
        if title and key != x:
            panels.setdefault(title, {})[key] = np.asarray(values, dtype=np.float64)
    panels = {title: curves for title, curves in panels.items() if curves}
    if not panels:
        raise PyrafuseError(
            f"no losses, AP or learning rate among {', '.join(history) or 'no series'}: nothing to plot"
        )
    return panels


def _draw_panel(
    axes: Axes, title: str, curves: _Curves, history: Mapping[str, Sequence[float]], x: str, *, is_alone: bool = False
) -> None:
    looks = _fusion_looks(list(curves)) if title == FUSION else _looks(title, list(curves))
    for (key, values), look in zip(curves.items(), looks, strict=True):
        points = _points(history, x, key, len(values))
        _plot_curve(axes, points, values, look)
    if any(not look.label for look in looks):
        axes.plot([], [], color="#606060", linestyle="--", label="validation: dashed")
    quiet_axes(axes, title=_titled(title, list(curves)), x=x if x in history else "step")
    _limit(axes, history, x, max(len(values) for values in curves.values()))
    if is_alone:
        if len(curves) > 1 or title != RATE:  # a lone rate is named by the title
            _legend(axes, is_below=True)
    elif title == FUSION:  # a column an output level, beneath: nine names would hide the curves
        count = len({key.split("/")[1] for key in curves})
        axes.legend(fontsize=7, ncols=count, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    elif len(curves) > 1 or title != RATE:
        _legend(axes, is_beside=True)
    if title in (PRECISION, POSITIVES, GRADIENTS, FUSION):
        axes.set_ylim(bottom=0)
    elif title == RATE:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:.3g}")  # "1e-3" above the axis would run into the title


LOSSES, LEVEL_LOSSES, POSITIVES, GRADIENTS, FUSION, PRECISION, RATE = PANELS = (
    "Losses",
    "Loss of each level",
    "Positives of each level",
    "Gradient at the neck's output",
    "Fusion weights",
    "Average precision and recall",
    "Learning rate",
)
_STYLES = ("-", "--", ":", "-.")


def _titled(title: str, keys: Sequence[str]) -> str:
    """The panel's title; of precision and recall only what is there."""
    names = [key.rsplit("/", 1)[-1].lower() for key in keys]
    if title != PRECISION or len({name.startswith("ar_") for name in names}) > 1:
        return title
    return "Average recall" if names[0].startswith("ar_") else "Average precision"


def _limit(axes: Axes, history: Mapping[str, Sequence[float]], x: str, count: int) -> None:
    """The same stretch of ``x`` in every panel, with whole numbers, half a unit free at both ends."""
    points = _points(history, x, x, len(history[x]) if x in history else count)
    if np.isfinite(points).any():
        axes.set_xlim(np.nanmin(points) - 0.5, np.nanmax(points) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


@dataclass(frozen=True)
class _Look:
    """How a curve is drawn; one without a label is not in the legend."""

    label: str
    color: str
    style: str = "-"
    width: float = 1.4


def _panel_of(key: str) -> str:
    """Title of the panel that ``key`` is drawn in; empty for none."""
    name = key.rsplit("/", 1)[-1].lower()
    if "positives" in key:
        return POSITIVES
    if "level" in key and "gradient" in name:
        return GRADIENTS
    if "loss" in key:
        part = name.removeprefix("loss_") if key.startswith("level/") and name.startswith("loss_") else ""
        return f"{LEVEL_LOSSES}: {part}" if part else LEVEL_LOSSES if "level" in key else LOSSES
    if key.startswith("fusion/"):
        return FUSION
    if name.startswith(("ap", "ar_")):
        return PRECISION
    return RATE if name.startswith(("lr", "learning_rate")) else ""


def _looks(title: str, keys: Sequence[str]) -> list[_Look]:
    """Label and colour of each curve of a panel: of "level/stride_8/loss" the level alone."""
    if title == LOSSES:
        return _loss_looks(keys)
    is_level = title in (POSITIVES, GRADIENTS) or title.startswith(LEVEL_LOSSES)
    colors = LEVEL_COLORS if is_level else LINE_COLORS
    prefix = _common_folder(keys)
    labels = [key.removeprefix(prefix) for key in keys]
    if is_level and all(key.count("/") == 2 for key in keys):
        labels = [key.split("/")[1].replace("_", " ") for key in keys]
    return [_Look(label, colors[i % len(colors)]) for i, label in enumerate(labels)]


def _loss_looks(keys: Sequence[str]) -> list[_Look]:
    """A colour for each term, in training and (dashed) in validation; the sum of the terms is thicker."""
    prefix = _common_folder(keys)
    terms = list(dict.fromkeys(key.rsplit("/", 1)[-1] for key in keys))
    looks = []
    for key in keys:
        term = key.rsplit("/", 1)[-1]
        is_validation = not prefix and key.startswith("val/")
        label = "" if is_validation else key.removeprefix(prefix or "train/")
        color = LINE_COLORS[terms.index(term) % len(LINE_COLORS)]
        looks.append(_Look(label, color, "--" if is_validation else "-", 2.4 if term == "loss" else 1.4))
    return looks


def _fusion_looks(keys: Sequence[str]) -> list[_Look]:
    """A colour for each source and a style for each output of "fusion/stride_8/from_stride_16"."""
    pairs = [(key.split("/")[1], key.rsplit("/", 1)[-1].removeprefix("from_")) for key in keys]
    outputs, sources = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    return [
        _Look(
            f"{output} from {source}".replace("_", " "),
            LEVEL_COLORS[sources.index(source) % len(LEVEL_COLORS)],
            _STYLES[outputs.index(output) % len(_STYLES)],
        )
        for output, source in pairs
    ]


def _points(history: Mapping[str, Sequence[float]], x: str, key: str, count: int) -> NDArray[np.float64]:
    if x not in history:
        return np.arange(1, count + 1, dtype=np.float64)
    if len(history[x]) != count:
        raise PyrafuseError(
            f"{key} has {count} values but {x} has {len(history[x])}: put NaN where it was not measured"
        )
    return np.asarray(history[x], dtype=np.float64)


def _plot_curve(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], look: _Look) -> None:
    """A line through the finite points; a long noisy one also as its running mean."""
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    label = plain(look.label) or "_nolegend_"
    options: dict[str, Any] = {"color": look.color, "linestyle": look.style, "label": label}
    if len(y) < _SMOOTHED_FROM:
        marker = "o" if len(y) <= 30 else ""
        axes.plot(x, y, linewidth=look.width, marker=marker, markersize=3, **options)
        return
    axes.plot(x, y, color=look.color, linewidth=0.6, alpha=0.3)
    window = len(y) // 40
    mean = np.convolve(y, np.ones(window) / window, mode="valid")
    axes.plot(x[window - 1 :], mean, linewidth=1.6, **options)


def _legend(axes: Axes, *, title: str | None = None, is_beside: bool = False, is_below: bool = False) -> None:
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


def _common_folder(keys: Sequence[str]) -> str:
    """The folders that all of several keys share: "train/" of "train/loss" and "train/loss_box"."""
    folders = {key.rpartition("/")[0] for key in keys}
    folder = folders.pop() if len(folders) == 1 else ""
    return f"{folder}/" if folder else ""


def _mean(values: ArrayLike, *, axis: int) -> NDArray[np.float64]:
    """Mean of what is defined; NaN, silently, where nothing is."""
    values = np.asarray(values, dtype=np.float64)
    counts = (~np.isnan(values)).sum(axis=axis)
    return np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan)
