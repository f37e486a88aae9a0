"""What a comparison found: average precision with its spread, beside what each variant costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.visualization.figures import LINE_COLORS, plain, quiet_axes

_MARKERS = "os^Dv<>P*X"


@dataclass(frozen=True)
class ComparedVariant:
    """One variant on one data set.

    Attributes:
        name: To call it by.
        ap: Mean average precision over seeds, 0..1.
        spread: Standard deviation over seeds; NaN where it is unknown.
        parameters: How many; NaN where it was not measured.
        latency_ms: Latency of one image; NaN where it was not measured.
    """

    name: str
    ap: float
    spread: float
    parameters: float
    latency_ms: float


def plot_comparison(by_data: Mapping[str, Sequence[ComparedVariant]], *, least_ap: float = 0.0) -> Figure:
    """AP with its spread beside latency and beside parameters: a row a data set, a colour a variant.

    Args:
        by_data: The variants by the name of the data set; those without an AP are left out.
        least_ap: AP below which nothing was learnt. Where no variant reaches it, the axis goes up to twice as much, so
            that chance is not enlarged.

    Raises:
        PyrafuseError: If no variant has an AP.
    """
    drawn = {data: [v for v in variants if not math.isnan(v.ap)] for data, variants in by_data.items()}
    drawn = {data: variants for data, variants in drawn.items() if variants}
    if not drawn:
        raise PyrafuseError("no variant has an average precision: nothing to plot")
    names = list(dict.fromkeys(v.name for variants in by_data.values() for v in variants))
    figure = Figure(figsize=(10, 3.6 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), 2, squeeze=False, sharey="row")
    for (by_latency, by_size), (data, variants) in zip(rows, drawn.items(), strict=True):
        for variant in variants:
            place = names.index(variant.name)
            for axes, cost in ((by_latency, variant.latency_ms), (by_size, variant.parameters / 1e6)):
                if not math.isnan(cost):
                    axes.errorbar(
                        [cost],
                        [variant.ap],
                        yerr=None if math.isnan(variant.spread) else [variant.spread],
                        color=LINE_COLORS[place % len(LINE_COLORS)],
                        marker=_MARKERS[place // len(LINE_COLORS) % len(_MARKERS)],
                        markersize=6,
                        capsize=4,
                        linestyle="none",
                        label=plain(variant.name),
                    )
        for axes, costs in (
            (by_latency, [v.latency_ms for v in variants]),
            (by_size, [v.parameters / 1e6 for v in variants]),
        ):
            front = find_front(costs, [v.ap for v in variants])
            if len(front) > 1:
                axes.plot(*zip(*front, strict=True), color="#808080", linewidth=1, zorder=0)
        quiet_axes(by_latency, title=plain(data), x="milliseconds an image", y="AP (bar: standard deviation)")
        quiet_axes(by_size, x="million parameters")
        for axes in (by_latency, by_size):
            axes.margins(x=0.15, y=0.15)
        if max(v.ap for v in variants) < least_ap:
            by_latency.set_ylim(0, 2 * least_ap)
            for axes in (by_latency, by_size):
                axes.axhline(least_ap, color="#808080", linestyle="--", linewidth=1)
                axes.text(0.02, 0.52, f"below AP {least_ap}: nothing was learnt", transform=axes.transAxes, fontsize=8)
        if by_latency.get_legend_handles_labels()[0]:
            by_latency.legend(fontsize=8)
        elif by_size.get_legend_handles_labels()[0]:
            by_size.legend(fontsize=8)
    return figure


def find_front(costs: Sequence[float], precisions: Sequence[float]) -> list[tuple[float, float]]:
    """Cost and AP of what nothing beats in both, Pareto's front, the cheapest first; undefined ones are left out."""
    front: list[tuple[float, float]] = []
    defined = [pair for pair in zip(costs, precisions, strict=True) if not any(map(math.isnan, pair))]
    for cost, ap in sorted(defined, key=lambda pair: (pair[0], -pair[1])):
        if not front or ap > front[-1][1]:
            front.append((cost, ap))
    return front
