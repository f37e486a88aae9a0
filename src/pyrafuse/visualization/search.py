"""How a search went: the best so far over the time that was spent, and what was found beside what it costs."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from pyrafuse.visualization.curves import PANEL_SIZE
from pyrafuse.visualization.figures import LINE_COLORS, plain, quiet_axes

Points = Sequence[tuple[float, float]]


def plot_best_over_time(curves: Mapping[str, Points], *, figure_of_merit: str, levels: Mapping[str, float]) -> Figure:
    """The best so far as steps.

    Args:
        curves: Minutes of training and best figure so far, by what was searching.
        figure_of_merit: What is compared.
        levels: Figures to compare with, by name: a line each.
    """
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes, title="Best so far", x="minutes of training", y=figure_of_merit)
    for color, (name, points) in zip(LINE_COLORS, curves.items(), strict=False):
        if points:
            axes.step(*zip(*points, strict=True), where="post", color=color, marker=".", label=plain(name))
    for color, (name, level) in zip(LINE_COLORS[len(curves) :], levels.items(), strict=False):
        axes.axhline(level, color=color, linestyle="--", linewidth=1, label=plain(name))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    return figure


def plot_costs(points: Mapping[str, Points], *, figure_of_merit: str, cost: str) -> Figure:
    """Each candidate as a point.

    Args:
        points: Cost and figure of each candidate, by what proposed it.
        figure_of_merit: What is compared.
        cost: The cost and its unit.
    """
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes, title="Found, and what it costs", x=cost, y=figure_of_merit)
    for color, (name, found) in zip(LINE_COLORS, points.items(), strict=False):
        if found:
            axes.plot(*zip(*found, strict=True), "o", markersize=4, color=color, label=plain(name))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    return figure


def plot_foretold(points: Sequence[tuple[float, float]]) -> Figure:
    """What a short training foretold beside what came of it: AP of both, a point a graph.

    Args:
        points: AP of the short training and AP in full.
    """
    figure = Figure(figsize=PANEL_SIZE, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes, title="Foretold, and what came of it", x="AP of the short training", y="AP in full")
    axes.plot(*zip(*points, strict=True), "o", markersize=4, color=LINE_COLORS[0])
    return figure
