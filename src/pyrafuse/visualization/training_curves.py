"""The course of a training: losses, AP, learning rate, and what each level does, a panel each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.explanations import label_of
from pyrafuse.visualization.curves import PANEL_SIZE, legend
from pyrafuse.visualization.figures import LEVEL_COLORS, LINE_COLORS, plain, quiet_axes
from pyrafuse.visualization.weight_rows import MAX_WEIGHT_CURVES, Weights, draw_rows, height_of, span_of, split_rows

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
_SMOOTHED_FROM = 200  # points; below, each one is worth seeing

_Curves = dict[str, NDArray[np.float64]]


def plot_training(history: Mapping[str, Sequence[float]], *, x: str = "epoch") -> Figure:
    """Losses, AP, learning rate, and what each level does in one training, a panel each.

    The key decides the panel, its part before the last "/" aside: ``positives`` in it; ``gradient`` and ``level`` in
    it; ``loss`` and ``level`` in it, each part ``level/.../loss_iou`` in a panel of its own; ``loss`` in it;
    ``fusion/OUTPUT/from_SOURCE``, more than 12 of them as rows of colours; ``ap...`` or ``ar_...``; ``lr...`` or
    ``learning_rate...``. Other keys are not drawn; panels without a curve are left out.

    Args:
        history: One value a point of ``history[x]``, NaN where a quantity was not measured; without that key the
            points are counted from 1.
        x: Key of the horizontal axis.

    Raises:
        PyrafuseError: If no key belongs to a panel, or a series is not as long as ``history[x]``.
    """
    panels = _sort_into_panels(history, x)
    many = panels.pop(FUSION) if _are_many_weights(panels) else {}
    columns = 2 if many else min(2, len(panels))
    heights = [3.4] * -(-len(panels) // columns)
    halves = split_rows(_weights_of(many)) if many else ()
    if halves:
        heights.append(height_of(max(map(len, halves))))
    figure = Figure(figsize=(6.6 * columns, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for place, (title, curves) in enumerate(panels.items()):
        _draw_panel(figure.add_subplot(grid[divmod(place, columns)]), title, curves, history, x)
    for column, half in enumerate(halves):
        if half:
            _draw_many_weights(figure.add_subplot(grid[-1, column]), half, many, history, x)
    return figure


def training_panels(history: Mapping[str, Sequence[float]], *, x: str = "epoch") -> dict[str, Figure]:
    """The panels of `plot_training` as figures of their own, by their title."""
    figures = {}
    panels = _sort_into_panels(history, x)
    for title, curves in panels.items():
        figures[title] = Figure(figsize=PANEL_SIZE, layout="constrained")
        if title == FUSION and _are_many_weights(panels):
            figures[title].set_size_inches(PANEL_SIZE[0], height_of(len(curves)))
            _draw_many_weights(figures[title].subplots(), _weights_of(curves), curves, history, x)
        else:
            _draw_panel(figures[title].subplots(), title, curves, history, x, is_alone=True)
    return figures


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
            legend(axes, is_below=True)
    elif title == FUSION:  # a column an output level, beneath: nine names would hide the curves
        count = len({key.split("/")[1] for key in curves})
        axes.legend(fontsize=7, ncols=count, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    elif len(curves) > 1 or title != RATE:
        legend(axes, is_beside=True)
    if title in (PRECISION, POSITIVES, GRADIENTS, FUSION):
        axes.set_ylim(bottom=0)
    elif title == RATE:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:.3g}")  # "1e-3" above the axis would run into the title


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


def _are_many_weights(panels: Mapping[str, _Curves]) -> bool:
    return len(panels.get(FUSION, ())) > MAX_WEIGHT_CURVES


def _weights_of(curves: _Curves) -> Weights:
    """The curves by what is fused and its source, of "fusion/stride_8/from_stride_16"."""
    return {
        (label_of(key.split("/")[1]), label_of(key.rsplit("/", 1)[-1].removeprefix("from_"))): values
        for key, values in curves.items()
    }


def _draw_many_weights(
    axes: Axes, weights: Weights, every: _Curves, history: Mapping[str, Sequence[float]], x: str
) -> None:
    """Some weights as rows, with the colours of ``every``."""
    key, values = next(iter(every.items()))
    points = _points(history, x, key, len(values))
    draw_rows(axes, weights, points, title=FUSION, x=x if x in history else "step", span=span_of(_weights_of(every)))


def _fusion_looks(keys: Sequence[str]) -> list[_Look]:
    """A colour for each source and a style for each output of "fusion/stride_8/from_stride_16"."""
    pairs = [*_weights_of(dict.fromkeys(keys, np.zeros(0)))]
    outputs, sources = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    return [
        _Look(
            f"{output} from {source}",
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


def _common_folder(keys: Sequence[str]) -> str:
    """The folders that all of several keys share: "train/" of "train/loss" and "train/loss_box"."""
    folders = {key.rpartition("/")[0] for key in keys}
    folder = folders.pop() if len(folders) == 1 else ""
    return f"{folder}/" if folder else ""
