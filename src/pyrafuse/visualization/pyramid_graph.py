"""A pyramid drawn as a graph: levels as rows, merges from left to right in the order in which they run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from pyrafuse.visualization.figures import LINE_COLORS, plain

PLAIN = "#e8e8e8"
UP, DOWN, ALONG = "#1f77b4", "#d62728", "#707070"


@dataclass(frozen=True)
class GraphNode:
    """One map of a pyramid.

    Attributes:
        name: Written into its circle.
        level: Number of its level: its row.
        inputs: Names of the nodes that it is made of; none for what comes in.
        operation: What makes it; nodes of one operation have one colour, and an empty one none.
        is_output: Whether it goes out: drawn with a thick rim.
    """

    name: str
    level: int
    inputs: tuple[str, ...] = ()
    operation: str = ""
    is_output: bool = False


def place_nodes(nodes: Sequence[GraphNode]) -> dict[str, int]:
    """Column of each node: right of all that it reads, and of all before it in its row."""
    columns: dict[str, int] = {}
    ends: dict[int, int] = {}
    for node in nodes:
        reads = [columns[name] for name in node.inputs]
        columns[node.name] = max([-1, *reads, ends.get(node.level, -1)]) + 1 if reads else ends.get(node.level, -1) + 1
        ends[node.level] = columns[node.name]
    return columns


def plot_graph(nodes: Sequence[GraphNode], *, title: str = "") -> Figure:
    """Draw ``nodes``, each after those that it reads; the coarsest level is the top row.

    Arrows are red from coarse to fine, blue from fine to coarse and grey within a level.
    """
    columns = place_nodes(nodes)
    levels = sorted({node.level for node in nodes})
    rows = {level: row for row, level in enumerate(levels)}
    num_columns = max(columns.values()) + 1
    operations = list(dict.fromkeys(node.operation for node in nodes if node.operation))
    palette = LINE_COLORS[2:]  # the first two are the arrows'
    colors = {name: palette[i % len(palette)] for i, name in enumerate(operations)}
    figure = Figure(figsize=(1.6 + 0.95 * num_columns, 1.5 + 0.95 * len(levels)), layout="constrained")
    axes = figure.subplots()
    place = {node.name: (float(columns[node.name]), float(rows[node.level])) for node in nodes}
    for row in rows.values():
        axes.axhline(row, color="#eeeeee", linewidth=8, zorder=0)
    for node in nodes:
        for name in node.inputs:
            start, end = place[name], place[node.name]
            _draw_arrow(axes, start, end, is_bent=any(_is_between(start, point, end) for point in place.values()))
    for node in nodes:
        x, y = place[node.name]
        axes.plot(
            x,
            y,
            "o",
            markersize=27,
            markerfacecolor=colors.get(node.operation, PLAIN),
            markeredgecolor="black",
            markeredgewidth=2.6 if node.is_output else 0.8,
            zorder=3,
        )
        color = "white" if node.operation in colors else "black"
        size = 8.5 if len(node.name) <= 4 else max(4.5, 34 / len(node.name))
        axes.text(x, y, plain(node.name), ha="center", va="center", color=color, fontsize=size, zorder=4)
    axes.set_yticks(list(rows.values()), [f"level {level}" for level in levels], fontsize=8)
    axes.set_xticks([])
    axes.set_xlim(-0.6, num_columns - 0.4)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(plain(title), loc="left", fontsize=10, fontweight="bold")
    marks = [_mark(colors[name], name) for name in operations]
    figure.legend(handles=[*marks, _mark("white", "goes out", rim=2.6)], loc="outside lower center", ncols=4,
                  frameon=False, fontsize=8)  # fmt: skip
    return figure


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, is_bent: bool) -> None:
    rise = end[1] - start[1]
    color = ALONG if rise == 0 else UP if rise > 0 else DOWN
    bend = -0.9 / math.dist(start, end) if is_bent else 0.0  # of one height, however far it goes
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=10,
            shrinkA=14,
            shrinkB=14,
            color=color,
            linewidth=1.3,
            zorder=2,
        )
    )


def _is_between(start: tuple[float, float], point: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether the straight way from start to end leads through ``point``."""
    (x0, y0), (x, y), (x1, y1) = start, point, end
    return x0 < x < x1 and (x - x0) * (y1 - y0) == (y - y0) * (x1 - x0)


def _mark(color: str, label: str, rim: float = 0.8) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker="o", markersize=9, markerfacecolor=color, markeredgecolor="black",
        markeredgewidth=rim, label=plain(label),
    )  # fmt: skip
