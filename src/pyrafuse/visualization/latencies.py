"""Latencies side by side."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pyrafuse.visualization.figures import LINE_COLORS, plain, quiet_axes


def plot_latencies(names: Sequence[str], medians_ms: Sequence[float], p95_ms: Sequence[float]) -> Figure:
    """A bar for each median, with a line to the 95th percentile; the first one on top."""
    figure = Figure(figsize=(7, 0.8 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    places = range(len(names))
    axes.barh(places, medians_ms, color=LINE_COLORS[0], height=0.6)
    axes.hlines(places, medians_ms, p95_ms, color=LINE_COLORS[1], linewidth=2)
    axes.set_yticks(places, [plain(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a batch: median, and line to the 95th percentile")
    return figure
