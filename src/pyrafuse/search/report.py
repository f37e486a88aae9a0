"""What a search left behind: a page that shows how it goes, and the best necks as YAML files.

journal -> search.html, while the search goes on and at its end; neck-1.yaml ... for `--model.neck FILE`
"""

import time
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from pyrafuse.base.printable import counted
from pyrafuse.base.writing import write_text
from pyrafuse.necks.graph_text import write_graph
from pyrafuse.reports.graphs import list_nodes
from pyrafuse.search.confirming import NUM_BEST
from pyrafuse.search.evidence import Evidence
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, Trial
from pyrafuse.search.ranking import leaders, rank
from pyrafuse.search.running import RANDOM, Plan, describe_cost, describe_result
from pyrafuse.search.strategies.registry import restore
from pyrafuse.training.progress import duration
from pyrafuse.visualization.pyramid_graph import plot_graph
from pyrafuse.visualization.report import Report
from pyrafuse.visualization.search import plot_best_over_time, plot_costs

PAGE = "search.html"
MAX_ROWS = 200
REFRESH_S = 15
BY_HAND = "made by hand"


class PageWriter:
    """Writes the page of a search that goes on now and then: at most a twentieth of the time is spent on it.

    Args:
        folder: Folder of the search.
        plan: How it searches.
        command: What to type to go on.
        train: What to type to train a detector with a neck found, its file left out.
    """

    def __init__(self, folder: Path, plan: Plan, *, command: str, train: str) -> None:
        self._folder, self._plan, self._command, self._train = folder, plan, command, train
        self._next = 0.0

    def write_if_old(self, trials: Sequence[Trial]) -> None:
        """Write the page if the last one is old."""
        start = time.monotonic()
        if start >= self._next:
            self.write(trials, is_running=True)
            self._next = time.monotonic() + max(REFRESH_S, 20 * (time.monotonic() - start))

    def write(self, trials: Sequence[Trial], *, is_running: bool, evidence: Evidence | None = None) -> None:
        """Write the page with all that is known; ``evidence`` of full trainings comes first."""
        report = Report(f"Search in {self._folder}", refresh_s=REFRESH_S if is_running else None)
        _add_lead(report, trials)
        if is_running:
            report.add_text("The search is going on; this page loads itself anew.")
        report.add_text("The same command goes on, also after Ctrl-C:")
        report.add_code(self._command)
        if evidence is not None:
            evidence.add_to(report, self._plan.inputs)
        self._add_best(report, trials, count=1 if is_running else NUM_BEST)
        _add_course(report, trials, self._plan)
        if words := self._plan.strategy.describe(trials):
            report.add_text(words)
        _add_trials(report, trials)
        report.save(self._folder / PAGE)

    def _add_best(self, report: Report, trials: Sequence[Trial], *, count: int) -> None:
        best, plan = leaders(trials)[:count], self._plan
        if not best:
            return
        report.add_section("Best necks" if count > 1 else "Best neck so far")
        for place, trial in enumerate(best, 1):
            graph = restore(plan.space, plan.inputs, trial).graph
            times = f", {graph.stack} times" if graph.stack > 1 else ""
            figure = plot_graph(
                list_nodes(graph, plan.inputs), title=f"{place}: trial {trial.number} ({trial.source}){times}"
            )
            report.add_figure(figure, f"{describe_result(trial)}; input {trial.size} px, {graph.channels} channels")
            if count > 1:
                neck = quote(str(self._folder / f"neck-{place}.yaml"))
                report.add_code(f"{self._train} --size {trial.size} --model.neck {neck}")


def write_best(folder: Path, trials: Sequence[Trial], plan: Plan) -> list[Path]:
    """Write the graphs of the best trials, the best as neck-1.yaml."""
    paths = []
    for place, trial in enumerate(leaders(trials)[:NUM_BEST], 1):
        path = folder / f"neck-{place}.yaml"
        graph = restore(plan.space, plan.inputs, trial).graph
        write_text(path, f"# trial {trial.number} ({trial.source}): {describe_result(trial)}\n{write_graph(graph)}")
        paths.append(path)
    return paths


def best_so_far(trials: Sequence[Trial]) -> dict[str, list[tuple[float, float]]]:
    """Minutes spent and best figure so far, of the whole search and of its random draws alone.

    Each spends its own time: at equal minutes the two have cost the same. The figure is AP after the last rung.
    """
    last = {trial.number for trial in leaders(trials)}
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, chosen in {"all trials": trials, "random draws": [t for t in trials if t.source == RANDOM]}.items():
        spent, best, points = 0.0, float("-inf"), []
        for trial in chosen:
            spent += trial.own_seconds + trial.seconds
            if trial.number in last and trial.ap is not None and trial.ap > best:
                best = trial.ap
                points.append((spent / 60, best))
        curves[name] = [*points, (spent / 60, best)] if points else []
    return curves


def _add_lead(report: Report, trials: Sequence[Trial]) -> None:
    states = [trial.state for trial in trials]
    spent = sum(trial.own_seconds + trial.seconds for trial in trials)
    best = next(iter(leaders(trials)), None)
    figures = [] if best is None else [("best so far", _reached(best), f"trial {best.number}, {best.source}")]
    report.add_lead(
        [
            *figures,
            ("trained", str(states.count(FINISHED)), f"{states.count(BEGUN)} begun, {states.count(FAILED)} failed"),
            ("over the budget", str(states.count(OVER_BUDGET)), "proposed and not trained"),
            ("training", duration(spent) if spent else "-", "of all trials, and the strategy's own"),
        ]
    )


def _add_course(report: Report, trials: Sequence[Trial], plan: Plan) -> None:
    last = leaders(trials)
    if not last or last[0].ap is None:
        return
    report.add_section("Course")
    by_hand = [trial for trial in last if trial.source not in (RANDOM, plan.source)]
    levels = {f"{trial.source} (by hand)": trial.ap for trial in by_hand[:1] if trial.ap is not None}
    figures = [
        (
            plot_best_over_time(best_so_far(trials), figure_of_merit="AP", levels=levels),
            "AP on the validation images after the last rung of the short training. Random draws spend their own time: "
            "at equal minutes both have cost the same.",
        )
    ]
    cost = next((name for name in ("latency_ms", "gflops", "parameters") if name in last[0].cost), None)
    if cost is not None:
        points: dict[str, list[tuple[float, float]]] = {}
        for trial in last:
            if trial.ap is not None and cost in trial.cost:
                name = trial.source if trial.source in (RANDOM, plan.source) else BY_HAND
                points.setdefault(name, []).append((trial.cost[cost], trial.ap))
        unit = {"latency_ms": "milliseconds an image", "gflops": "GFLOPs", "parameters": "parameters"}[cost]
        figures.append((plot_costs(points, figure_of_merit="AP", cost=unit), "Trials that came to the last rung."))
    report.add_charts(figures)


def _add_trials(report: Report, trials: Sequence[Trial]) -> None:
    ranked = rank(trials)
    rest = [trial for trial in trials if trial.state != FINISHED]
    shown = [*ranked, *reversed(rest)][:MAX_ROWS]
    report.add_section("Trials")
    rows = [
        (
            str(trial.number),
            trial.source,
            trial.state,
            " ".join(f"{rung.loss:.3f}" for rung in trial.rungs) or "-",
            "-" if trial.ap is None else f"{trial.ap:.3f}",
            ", ".join(describe_cost(name, value) for name, value in trial.cost.items()) or "-",
            f"{trial.seconds:.1f}",
            trial.reason or "-",
        )
        for trial in shown
    ]
    left_out = len(trials) - len(shown)
    caption = "The best first. Loss: mean training loss of each rung; later rungs order only those that reached them."
    caption += f" {counted(left_out, 'trial')} not shown; journal.jsonl has all." if left_out > 0 else ""
    header = ("trial", "by", "state", "loss", "AP", "cost", "seconds", "reason")
    report.add_table(header, rows, caption)


def _reached(trial: Trial) -> str:
    return f"AP {trial.ap:.3f}" if trial.ap is not None else f"loss {trial.rungs[-1].loss:.3f}"
