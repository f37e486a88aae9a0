"""What the runs of a comparison found: gathered, judged, and told as Markdown and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.typed_values import without_nan
from pyrafuse.comparison.planning import Comparison
from pyrafuse.experiments.budget import Budget
from pyrafuse.experiments.costs import Cost
from pyrafuse.experiments.running import Failure, Run
from pyrafuse.experiments.statistics import (
    LEAST_AP,
    RULE,
    Difference,
    Spread,
    compare_by_seed,
    has_learnt,
    summarize,
)
from pyrafuse.visualization.comparison import ComparedVariant

FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large",
}  # fmt: skip
"""Figures of an evaluation that are told, by their title in a table."""


@dataclass(frozen=True)
class VariantResult:
    """One variant on one data set.

    Attributes:
        name: Name of the variant.
        figures: By seed, the figures of its best evaluation; NaN where one is undefined.
        cost: None where no run left a model to measure.
    """

    name: str
    figures: Mapping[int, Mapping[str, float]]
    cost: Cost | None

    def spread(self, figure: str) -> Spread:
        """Of one figure over the seeds."""
        return summarize([values[figure] for values in self.figures.values()])

    @property
    def has_learnt(self) -> bool | None:
        """Whether the AP of any run reaches `LEAST_AP`; None without a run that has one."""
        return has_learnt(values["ap"] for values in self.figures.values())


@dataclass(frozen=True)
class DataResult:
    """All variants on one data set.

    Attributes:
        name: Name of the data set.
        path: Where it is.
        budget: How long each run was.
        variants: In the order they were named.
        differences: In AP, of each pair.
    """

    name: str
    path: str
    budget: Budget
    variants: tuple[VariantResult, ...]
    differences: tuple[Difference, ...]

    @property
    def unlearnt(self) -> tuple[str, ...]:
        """Names of the variants that learnt nothing."""
        return tuple(variant.name for variant in self.variants if variant.has_learnt is False)

    def compared(self) -> list[ComparedVariant]:
        """What is drawn: AP with its spread, latency and parameters of every variant."""
        return [
            ComparedVariant(
                name=variant.name,
                ap=variant.spread("ap").mean,
                spread=variant.spread("ap").deviation,
                parameters=variant.cost.parameters if variant.cost else math.nan,
                latency_ms=variant.cost.latency_ms if variant.cost else math.nan,
            )
            for variant in self.variants
        ]

    def advice(self) -> str:
        """What the figures cannot tell because variants learnt nothing, and what to do; empty where all learnt."""
        if not self.unlearnt:
            return ""
        epochs = self.budget.epochs
        longer = (
            f"Give more epochs (`--epochs`, {epochs} here), or pretrained weights to start from (`--weights FILE`), "
            "and another `--output`."
        )
        if not any(variant.has_learnt for variant in self.variants):
            return f"**Nothing was learnt: the AP of every run is below {LEAST_AP}.** This ranks no variant. {longer}"
        return (
            f"**Learnt nothing (AP below {LEAST_AP} in every run): {', '.join(self.unlearnt)}.** Either these variants "
            "need more steps than the others, or an option of theirs is wrong: look at the losses in their folders "
            f"before you judge them. {longer}"
        )


@dataclass(frozen=True)
class Report:
    """Everything a comparison found.

    Attributes:
        data: One entry a data set.
        seeds: Those that were asked for.
        failures: Runs without results.
        machine: Machine that latency was measured on, in words.
    """

    data: tuple[DataResult, ...]
    seeds: tuple[int, ...]
    failures: tuple[Failure, ...]
    machine: str

    def markdown(self) -> str:
        """Tables for people, with the rule by which they judge."""
        parts = [_section(data, self.seeds) for data in self.data]
        if self.failures:
            listed = "\n".join(f"- {failure.run.title}: {failure.reason}" for failure in self.failures)
            parts.append(f"## Runs that failed\n\n{listed}\n")
        parts.append(
            "Figures are means over seeds ± standard deviation, each run by its best evaluation. GFLOPs: convolutions "
            "and matrix products of one image, a multiplication and its addition being two. Latency: one image at the "
            "network's input sizes of the validation images, forward pass and decoding, float32, median, all variants "
            f"in turn in one process, on {self.machine}.\n\n"
            f"{RULE}\n"
        )
        return "\n".join(parts)

    def to_json(self) -> str:
        """Everything for programs; null where a figure is undefined."""
        plain = {
            "seeds": list(self.seeds),
            "machine": self.machine,
            "rule": RULE,
            "data": [_data_to_plain(data) for data in self.data],
            "failures": [
                {"data": f.run.data, "variant": f.run.variant, "seed": f.run.recipe.run.seed, "reason": f.reason}
                for f in self.failures
            ],
        }
        return json.dumps(without_nan(plain), indent=1, allow_nan=False, ensure_ascii=False)

    def compared(self) -> dict[str, list[ComparedVariant]]:
        """What is drawn of each data set."""
        return {data.name: data.compared() for data in self.data}


def read_figures(run: Run) -> dict[str, float]:
    """The figures of a finished run.

    Raises:
        PyrafuseError: If its results are damaged.
    """
    path = run.folder / "results.json"
    try:
        results = json.loads(path.read_text())
        return {name: math.nan if results[name] is None else float(results[name]) for name in FIGURES}
    except (ValueError, KeyError, TypeError) as error:
        raise PyrafuseError(f"{path} is damaged: remove it, and the run goes on from its last epoch") from error


def gather(
    comparison: Comparison,
    runs: Sequence[Run],
    *,
    budgets: Mapping[str, Budget],
    costs: Mapping[tuple[str, str], Cost],
    failures: Sequence[Failure],
    machine: str,
) -> Report:
    """Read what the runs left and judge it.

    Args:
        comparison: What was compared.
        runs: All of its runs.
        budgets: By data set.
        costs: By data set and variant.
        failures: Runs that are to be told as failed.
        machine: Machine that latency was measured on.
    """
    finished: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for run in runs:
        if run.is_finished:
            finished.setdefault((run.data, run.variant), {})[run.recipe.run.seed] = read_figures(run)
    data = []
    for name, path in comparison.data.items():
        variants = tuple(
            VariantResult(variant.name, finished.get((name, variant.name), {}), costs.get((name, variant.name)))
            for variant in comparison.variants
        )
        precisions = {v.name: {seed: values["ap"] for seed, values in v.figures.items()} for v in variants}
        differences = tuple(compare_by_seed(a, b, precisions) for a, b in combinations(precisions, 2))
        data.append(DataResult(name, path, budgets[name], variants, differences))
    return Report(tuple(data), comparison.seeds, tuple(failures), machine)


def tabulate(data: DataResult, seeds: Sequence[int]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table of ``data``: AP with its spread, costs, and how many of the runs there are."""
    header = ("variant", *FIGURES.values(), "M parameters", "GFLOPs", "latency, ms", "runs")
    rows = []
    for variant in data.variants:
        cost = variant.cost
        costs = (
            (f"{cost.parameters / 1e6:.2f}", _three_digits(cost.gflops), f"{cost.latency_ms:.1f}")
            if cost
            else ("-",) * 3
        )
        figures = (str(variant.spread(name)) for name in FIGURES)
        rows.append((variant.name, *figures, *costs, f"{len(variant.figures)}/{len(seeds)}"))
    return header, rows


def _section(data: DataResult, seeds: Sequence[int]) -> str:
    header, rows = tabulate(data, seeds)
    steps = set(data.budget.steps.values())
    lengths = (
        f"{steps.pop()} batches"
        if len(steps) == 1
        else "batches by variant: " + ", ".join(f"{name} {count}" for name, count in data.budget.steps.items())
    )
    sizes = dict.fromkeys(v.cost.size_text for v in data.variants if v.cost)
    at = f", {' or '.join(sizes)}" if sizes else ""
    epochs = f"{data.budget.epochs} epoch{'s' if data.budget.epochs > 1 else ''} of {lengths}"
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    parts = [f"## {data.name}\n", f"{data.path}: {epochs}, {named}{at}\n", piped(header, rows)]
    if data.differences:
        parts.append("")
        compared = (
            (
                f"{d.first} - {d.second}",
                _signed(d.mean),
                "-" if math.isnan(d.standard_error) else f"{d.standard_error:.4f}",
                str(d.count),
                d.verdict(),
            )
            for d in data.differences
        )
        parts.append(piped(("difference in AP", "mean", "standard error", "seeds", "verdict"), list(compared)))
    if advice := data.advice():
        parts.append(f"\n{advice}")
    return "\n".join(parts) + "\n"


def piped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned as well; numbers to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    first, *rest = widths
    lines = [f"| {'-' * first} | " + " | ".join("-" * (width - 1) + ":" for width in rest) + " |"]
    cells = [
        "| " + " | ".join([row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], rest, strict=True))]) + " |"
        for row in (header, *rows)
    ]
    return "\n".join([cells[0], *lines, *cells[1:]])


def _three_digits(value: float) -> str:
    return f"{value:#.3g}" if value < 100 else f"{value:.0f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}"


def _data_to_plain(data: DataResult) -> dict[str, Any]:
    return {
        "name": data.name,
        "path": data.path,
        "epochs": data.budget.epochs,
        "batches_an_epoch": dict(data.budget.steps),
        "variants": [
            {
                "name": variant.name,
                "figures": {
                    name: {**vars(variant.spread(name)), "by_seed": {s: f[name] for s, f in variant.figures.items()}}
                    for name in FIGURES
                },
                "cost": vars(variant.cost) if variant.cost else None,
            }
            for variant in data.variants
        ],
        "differences": [
            {**vars(d), "half_width_95": d.half_width, "is_within_spread": d.is_within_spread} for d in data.differences
        ],
        "learnt_nothing": list(data.unlearnt),
    }
