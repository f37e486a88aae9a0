"""What full trainings say of a search, for its page: which neck is better in earnest, and whether to trust the ranking.

`Confirmation` -> AP against latency, a table with spread, the graphs; `Trust` -> correlations and a scatter
"""

from dataclasses import dataclass

from pyrafuse.base.printable import counted
from pyrafuse.comparison.report import tabulate
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.experiments.statistics import LEAST_AP, RULE
from pyrafuse.reports.graphs import list_nodes
from pyrafuse.search.confirming import Confirmation
from pyrafuse.search.trust import TRUSTED, Trust
from pyrafuse.visualization.comparison import plot_comparison
from pyrafuse.visualization.pyramid_graph import plot_graph
from pyrafuse.visualization.report import Report
from pyrafuse.visualization.search import plot_foretold


@dataclass(frozen=True)
class Evidence:
    """Full trainings, as far as they were asked for.

    Attributes:
        confirmation: What they say of the best necks.
        trust: What they say of the ranking.
    """

    confirmation: Confirmation | None = None
    trust: Trust | None = None

    def add_to(self, report: Report, inputs: PyramidSpec) -> None:
        """Add a section of each to ``report``; nothing where nothing was asked for."""
        if self.confirmation is not None:
            _add_confirmation(report, self.confirmation, inputs)
        if self.trust is not None:
            _add_trust(report, self.trust)


def _add_confirmation(report: Report, confirmation: Confirmation, inputs: PyramidSpec) -> None:
    data = confirmation.results.data
    report.add_section("Trained in full")
    for line in (*confirmation.sentences(), *confirmation.results.failures):
        report.add_text(line)
    if any(variant.figures for variant in data.variants):
        report.add_figure(
            plot_comparison({data.name: data.compared()}, least_ap=LEAST_AP),
            "The line joins the variants that none beats in both AP and cost.",
        )
    header, rows = tabulate(data, confirmation.results.seeds)
    report.add_table(
        header,
        rows,
        f"Means over seeds ± standard deviation after {counted(data.budget.epochs, 'epoch')}, backbone unfrozen. "
        f"{RULE}",
    )
    for name, candidate in confirmation.chosen.candidates.items():
        times = f", {candidate.graph.stack} times" if candidate.graph.stack > 1 else ""
        with report.folded(f"{name}: the graph"):
            report.add_figure(plot_graph(list_nodes(candidate.graph, inputs), title=f"{name}{times}"))


def _add_trust(report: Report, trust: Trust) -> None:
    report.add_section("Whether the ranking can be trusted")
    report.add_text(trust.sentences()[-1] if not trust.is_trusted else f"Every rung reaches {TRUSTED}.")
    rows = [
        (one.what, f"{one.value:.2f}", f"{one.low:.2f} to {one.high:.2f}", str(one.count))
        for one in (*trust.rungs, *trust.sizes, trust.stability)
    ]
    report.add_table(
        ("with AP in full", "rank correlation", "95 % interval", "graphs"),
        rows,
        "Spearman's rank correlation over random graphs. The last row holds one seed against the other: no ranking "
        "foretells more than the full trainings repeat.",
    )
    report.add_figure(
        plot_foretold([(one.ap, one.truth) for one in trust.graphs]),
        "AP of the short training and mean AP in full; a point a graph.",
    )
