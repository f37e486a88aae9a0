"""What a run shows of itself: curves as pictures, and report.html, also while it goes on and where it was stopped."""

import csv
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import check_file
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.printable import printable
from pyrafuse.base.writing import write_atomically
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.reports.history import add_history
from pyrafuse.reports.quality import add_quality, draw_confusion, draw_precision_recall
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.report import Report
from pyrafuse.visualization.training_curves import plot_training

PAGE = "report.html"
_MOST_EPOCHS = 10**7
REWRITTEN_AFTER_S = 300.0
"""A run that goes on writes its page again after the first evaluation that is so much later than the last page."""


class PageWriter:
    """Write the page of a run that goes on now and then, and of one that is stopped by Ctrl-C or an error."""

    def __init__(self, folder: Path, *, every_s: float = REWRITTEN_AFTER_S) -> None:
        self._folder = folder
        self._every_s = every_s
        self._written = time.monotonic()

    def write_if_old(self, best: EvaluationResult | None) -> None:
        """Write the page if the last one is old; its rows of metrics.csv are there."""
        if time.monotonic() - self._written >= self._every_s:
            write_page(self._folder, best)
            self._written = time.monotonic()

    def write_stopped(self, best: EvaluationResult | None) -> None:
        """Show what is there; whatever goes wrong here must not hide what went wrong before."""
        with hold_interrupts(), suppress(Exception):
            write_page(self._folder, best)


def draw_run(folder: Path, evaluation: EvaluationResult) -> None:
    """Draw the run in ``folder``: the curves, precision and recall, confusion, and the page with all of it.

    Recalls are in its metrics.csv alone.
    """
    history = {key: values for key, values in read_history(folder).items() if not key.startswith("val/ar_")}
    save_figure(plot_training(history), folder / "curves.png")
    draw_precision_recall(evaluation, folder / "precision_recall.png")
    draw_confusion(evaluation, folder / "confusion.png")
    write_page(folder, evaluation)


def write_page(folder: Path, evaluation: EvaluationResult | None) -> None:
    """Write report.html of the run in ``folder`` with what is there; nothing where no epoch is behind it.

    Args:
        folder: Folder of the run, with its recipe.yaml and metrics.csv.
        evaluation: The best one; None where there was none yet.
    """
    history = read_history(folder)
    if not history:
        return
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    report = Report(f"Training in {folder}")
    done, epochs = int(max(history["epoch"])), recipe["run"]["epochs"]
    if done < epochs:
        report.add_text(f"{done} of {epochs} epochs are trained so far. A run that was stopped goes on with:")
        report.add_code(f"pyrafuse train --resume --output {quote(str(folder))}")
    if evaluation is None:
        report.add_text("There was no evaluation yet, so there is no average precision.")
    else:
        add_quality(report, evaluation, on="validation")
    add_history(report, history)
    _add_facts(report, folder, recipe, history)
    report.save(folder / PAGE)


def read_history(folder: Path) -> dict[str, list[float]]:
    """The columns of ``metrics.csv``, one value an epoch, NaN where an epoch has none; empty where there is no file.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / "metrics.csv"
    rows = _read_rows(path)
    try:
        return {key: [float(row[key] or "nan") for row in rows] for key in (rows[0] if rows else {})}
    except ValueError as error:
        raise _damaged(path, error) from error


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file that `add_row` wrote, each with a value, an empty one perhaps, in every column.

    Raises:
        DataError: If it cannot be read so.
    """
    if not path.exists():
        return []
    try:
        check_file(path)
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values():
                raise ValueError(f"row {number} has not as many values as there are columns")
            if not 1 <= int(row.get("epoch", "")) <= _MOST_EPOCHS:
                raise ValueError(f"row {number} is of epoch {printable(row['epoch'], limit=20)}")
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, error) from error
    return rows


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is damaged ({printable(error, limit=120)}): strike the rows that are wrong, or remove the file; the "
        "checkpoints do not need it"
    )


def add_row(path: Path, epoch: int, metrics: Mapping[str, float]) -> None:
    """Add the row of ``epoch`` (from 1) to a CSV file; rows of epochs that are trained anew are replaced.

    Raises:
        DataError: If the file is damaged.
    """
    rows: list[dict[str, Any]] = [row for row in _read_rows(path) if int(row["epoch"]) < epoch]
    rows.append({"epoch": epoch, **{key: f"{value:.6g}" for key, value in metrics.items()}})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with write_atomically(path, "w") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def _add_facts(report: Report, folder: Path, recipe: dict[str, Any], history: dict[str, list[float]]) -> None:
    rows = zip(history.get("val/ap", ()), history["epoch"], strict=False)
    evaluated = [(ap, -epoch) for ap, epoch in rows if ap == ap]
    report.add_section("The run")
    report.add_key_values(
        {
            "data": recipe["data"]["path"],
            "model": recipe["model"]["name"],
            "input": f"{recipe['data']['size']} px, batch {recipe['run']['batch_size']}",
            "best epoch": f"{-max(evaluated)[1]:.0f}" if evaluated else "-",
            "recipe": folder / "recipe.yaml",
        }
    )
    if evaluated:
        best = quote(str(folder / "best.ckpt"))
        report.add_section("What to do next")
        commands = (f"evaluate {best}", f"predict {best} images/", f"explain {best} images/")
        report.add_code("\n".join(f"pyrafuse {command}" for command in commands))
