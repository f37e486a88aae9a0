"""A whole comparison: checked, planned, trained, measured, told; begun and gone on with by the same call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from pyrafuse.base.locking import hold_folder
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.comparison.planning import Comparison, Settled, claim_folder, keep, plan_runs, read_data
from pyrafuse.comparison.report import Report, gather
from pyrafuse.core.devices import choose_device, describe_device
from pyrafuse.data.formats.layout import Splits
from pyrafuse.experiments.budget import check_models, set_budget, settle_precision
from pyrafuse.experiments.costs import Cost, measure_costs
from pyrafuse.experiments.running import PROGRAM, Run, Slot, run_all
from pyrafuse.experiments.statistics import LEAST_AP
from pyrafuse.importers.loading import load
from pyrafuse.visualization.comparison import plot_comparison
from pyrafuse.visualization.figures import save_figure


@dataclass(frozen=True)
class ComparisonResult:
    """What a comparison left behind.

    Attributes:
        folder: Everything is here: comparison.md, comparison.json, comparison.png, and a folder a run.
        report: The same as values.
    """

    folder: Path
    report: Report


def compare(
    comparison: Comparison,
    folder: Path,
    *,
    slots: Sequence[Slot],
    imports: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    rounds: int = 30,
    console: Console | None = None,
) -> ComparisonResult:
    """Train every variant on every data set with every seed, then measure and judge.

    Runs that are finished in ``folder`` are not repeated, and a run that was stopped goes on.

    Args:
        comparison: What is compared.
        folder: For everything; new, or that of the same comparison.
        slots: Where to train, see `find_slots`.
        imports: Modules of the user's that every training imports first.
        program: What stands for `pyrafuse`.
        rounds: Timed images a variant, for the latency.
        console: Console for progress output.

    Raises:
        PyrafuseError: If a variant cannot be built, the data cannot be read, the folder holds something else, or
            another process compares in it; before anything is trained. A training that fails is in the report instead.
    """
    console = console or Terminal(quiet=True)
    with hold_folder(folder):
        splits = read_data(comparison)
        for name, data in splits.items():
            console.print(f"{name}: {data.finding}", highlight=False, markup=False)
        check_models(comparison.recipes, splits.values())
        settled, asked = claim_folder(folder, comparison), comparison
        accelerator, threads = slots[0].accelerator, slots[0].threads
        recipes, precision = settle_precision(
            asked.recipes,
            next(iter(splits.values())),
            accelerator=accelerator,
            threads=threads,
            settled=settled.precision,
            say=lambda text: console.print(text, highlight=False, markup=False),
        )
        comparison = asked.with_recipes(recipes)
        budgets = {
            name: set_budget(
                recipes,
                data,
                epochs=settled.epochs.get(name),
                minutes=asked.minutes,
                accelerator=accelerator,
                threads=threads,
            )
            for name, data in splits.items()
        }
        epochs = settled.epochs or {name: budget.epochs for name, budget in budgets.items()}
        keep(folder, asked, Settled(epochs, precision))
        runs = plan_runs(comparison, folder, epochs)
        lengths = ", ".join(f"{count} epoch{'s' if count > 1 else ''} on {name}" for name, count in epochs.items())
        console.print(
            f"{len(runs)} runs, {lengths}; {len(slots)} at a time on {slots[0].accelerator}; into {folder}",
            highlight=False,
        )
        failures = run_all(runs, slots, imports=imports, program=program, console=console)
        device = choose_device(accelerator)
        report = gather(
            comparison,
            runs,
            budgets=budgets,
            costs=measure_variants(runs, splits, device=device, rounds=rounds),
            failures=failures,
            machine=describe_device(device),
        )
        write_text(folder / "comparison.md", report.markdown())
        write_text(folder / "comparison.json", report.to_json())
        if any(variant.figures for data in report.data for variant in data.variants):
            save_figure(plot_comparison(report.compared(), least_ap=LEAST_AP), folder / "comparison.png")
        return ComparisonResult(folder, report)


def measure_variants(
    runs: Sequence[Run], data: Mapping[str, Splits], *, device: torch.device, rounds: int
) -> dict[tuple[str, str], Cost]:
    """Costs of each data set's variants, by the checkpoint of the first finished seed."""
    costs: dict[tuple[str, str], Cost] = {}
    for name, splits in data.items():
        first: dict[str, Run] = {}
        for run in runs:
            if run.data == name and run.is_finished:
                first.setdefault(run.variant, run)
        detectors = {variant: load(run.folder / "best.ckpt") for variant, run in first.items()}
        measured = measure_costs(detectors, splits.val.records, device=device, rounds=rounds)
        costs |= {(name, variant): cost for variant, cost in measured.items()}
    return costs
