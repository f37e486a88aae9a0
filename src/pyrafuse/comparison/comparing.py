"""A whole comparison: checked, planned, trained, measured, told; begun and gone on with by the same call."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from pyrafuse.base.terminal import Terminal
from pyrafuse.comparison.budget import check_models, read_data, set_budget, settle_precision
from pyrafuse.comparison.planning import Comparison, Run, Settled, claim_folder, keep, plan_runs
from pyrafuse.comparison.report import Cost, Report, gather
from pyrafuse.comparison.running import PROGRAM, Slot, run_all
from pyrafuse.core.storage import write_text
from pyrafuse.importers.loading import load
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies
from pyrafuse.models.detector import Detector
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
        console: Where to tell the progress.

    Raises:
        PyrafuseError: If a variant cannot be built, the data cannot be read, or the folder holds something else;
            before anything is trained. A training that fails is in the report instead.
    """
    console = console or Terminal(quiet=True)
    splits = read_data(comparison)
    for name, data in splits.items():
        console.print(f"{name}: {data.finding}", highlight=False, markup=False)
    check_models(comparison, splits)
    settled, asked = claim_folder(folder, comparison), comparison
    accelerator, threads = slots[0].accelerator, slots[0].threads
    comparison, precision = settle_precision(
        asked,
        splits,
        accelerator=accelerator,
        threads=threads,
        settled=settled.precision,
        say=lambda text: console.print(text, highlight=False, markup=False),
    )
    budgets = set_budget(comparison, splits, epochs=settled.epochs, accelerator=accelerator, threads=threads)
    epochs = settled.epochs or {name: budget.epochs for name, budget in budgets.items()}
    keep(folder, asked, Settled(epochs, precision))
    runs = plan_runs(comparison, folder, epochs)
    lengths = ", ".join(f"{count} epoch{'s' if count > 1 else ''} on {name}" for name, count in epochs.items())
    console.print(
        f"{len(runs)} runs, {lengths}; {len(slots)} at a time on {slots[0].accelerator}; into {folder}",
        highlight=False,
    )
    failures = run_all(runs, slots, imports=imports, program=program, console=console)
    device = measuring_device(slots[0])
    report = gather(
        comparison,
        runs,
        budgets=budgets,
        costs=measure_costs(runs, device=device, rounds=rounds),
        failures=failures,
        machine=describe_device(device),
    )
    write_text(folder / "comparison.md", report.markdown())
    write_text(folder / "comparison.json", report.to_json())
    if any(variant.figures for data in report.data for variant in data.variants):
        save_figure(report.figure(), folder / "comparison.png")
    return ComparisonResult(folder, report)


def measure_costs(runs: Sequence[Run], *, device: torch.device, rounds: int) -> dict[tuple[str, str], Cost]:
    """Parameters, operations and latency of each data set's variants, by the checkpoint of the first finished seed.

    Variants of one data set take turns on ``device``, one image of their own size at a time.
    """
    first: dict[tuple[str, str], Run] = {}
    for run in runs:
        if run.is_finished:
            first.setdefault((run.data, run.variant), run)
    costs: dict[tuple[str, str], Cost] = {}
    for data in dict.fromkeys(name for name, _ in first):
        costs |= _measure_variants({key: run for key, run in first.items() if key[0] == data}, device, rounds)
    return costs


def _measure_variants(
    runs: Mapping[tuple[str, str], Run], device: torch.device, rounds: int
) -> dict[tuple[str, str], Cost]:
    detectors = {key: load(run.folder / "best.ckpt") for key, run in runs.items()}
    sizes = {key: min(detector.card.preprocessing.size) for key, detector in detectors.items()}
    gflops = {
        key: count_gflops(detector, torch.zeros(1, 3, sizes[key], sizes[key])) for key, detector in detectors.items()
    }
    generator = torch.Generator().manual_seed(0)
    work = {}
    for key, detector in detectors.items():
        image = torch.randn(1, 3, sizes[key], sizes[key], generator=generator).to(device)
        work[key[1]] = _decoding(detector.to(device), image)
    latencies = measure_latencies(work, rounds=rounds, device=device)
    return {
        key: Cost(count_parameters(detector), gflops[key], latencies[key[1]], sizes[key])
        for key, detector in detectors.items()
    }


def _decoding(detector: Detector, image: torch.Tensor) -> Callable[[], object]:
    return lambda: detector.decode(image)


def measuring_device(slot: Slot) -> torch.device:
    """Where latency is measured: the first slot's kind of device."""
    if slot.accelerator == "gpu":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(slot.accelerator)


def describe_device(device: torch.device) -> str:
    """What the device is, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return (
        f"{platform.machine()} {device.type}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"
    )
