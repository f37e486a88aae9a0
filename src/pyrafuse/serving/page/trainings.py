"""Trainings in a folder of runs, running and past: metrics.csv -> curves; best.ckpt -> a sample of its predictions."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.printable import printable
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.importers.loading import load
from pyrafuse.training.reporting import read_history
from pyrafuse.visualization.drawing import draw_ground_truth_beside
from pyrafuse.visualization.figures import encode_figure
from pyrafuse.visualization.training_curves import plot_training

RECENT_S = 600.0
"""A training whose files changed within this is taken to be running."""


def list_runs(folder: Path) -> list[Path]:
    """Folders of trainings in ``folder`` and in its folders, the one that changed last first."""
    found = [path.parent for path in (*folder.glob("*/metrics.csv"), *folder.glob("*/*/metrics.csv"))]
    return sorted(found, key=_changed, reverse=True)


def summarize(runs: Sequence[Path], folder: Path) -> list[list[Any]]:
    """A row a training: name, state, epochs, best AP and AP50 in percent, and data."""
    return [[str(run.relative_to(folder)), *_summarize(run)] for run in runs]


def draw_curves(run: Path) -> bytes:
    """Losses, AP and what each level does, as PNG.

    Raises:
        PyrafuseError: If there is no whole epoch.
    """
    history = {
        key: values
        for key, values in read_history(run).items()
        if not key.startswith("val/ar_") and not (key.startswith("level/") and "/loss_" in key)
    }
    if not history:
        raise PyrafuseError(f"{run.name} has no whole epoch yet")
    return encode_figure(plot_training(history), dpi=90)


def sample_predictions(run: Path, *, count: int = 4, score: float = 0.25) -> list[tuple[NDArray[np.uint8], str]]:
    """Validation images with what best.ckpt finds at the left, and what is there at the right.

    Raises:
        PyrafuseError: If there is no checkpoint, or its data are not there any more.
    """
    if not (run / "best.ckpt").is_file():
        raise PyrafuseError(f"{run.name} has no best.ckpt yet: it is written by the first evaluation")
    data = _read_recipe(run).get("data", {})
    splits = read_splits(
        str(data["path"]),
        train=data.get("train"),
        val=data.get("val"),
        val_fraction=data.get("val_fraction", 0.2),
        rules=ReadingRules.from_values({**vars(ReadingRules()), **data}),
    )
    records = splits.val.records
    chosen = [records[row] for row in np.unique(np.linspace(0, len(records) - 1, count).astype(int))]
    detector = load(run / "best.ckpt")
    found = detector.predict([record.path for record in chosen], score=score, keep_images=True)
    return [
        (
            np.ascontiguousarray(to_numpy(draw_ground_truth_beside(each, record)).transpose(1, 2, 0)),
            f"{printable(record.path.name, limit=60)}: {len(each)} found of {len(record.labels)}",
        )
        for each, record in zip(found, chosen, strict=True)
    ]


def _summarize(run: Path) -> tuple[str, str, str, str, str]:
    try:
        history, recipe = read_history(run), _read_recipe(run)
    except DataError:  # the others are shown all the same; its own curves tell what is wrong
        return "damaged", "?", "", "", "?"
    done = int(max(history.get("epoch", [0])))
    state = "running" if time.time() - _changed(run) < RECENT_S else "stopped"
    best: dict[str, Any] = {}
    if (run / "results.json").is_file():
        state, best = "complete", json.loads((run / "results.json").read_text())
    scores = [best.get(name, _most(history.get(f"val/{name}", []))) for name in ("ap", "ap50")]
    ap, ap50 = ("" if value is None else f"{100 * value:.1f}" for value in scores)
    epochs = recipe.get("run", {}).get("epochs", "?")
    return state, f"{done} of {epochs}", ap, ap50, printable(recipe.get("data", {}).get("path", "?"), limit=80)


def _most(values: Sequence[float]) -> float | None:
    return max((value for value in values if value == value), default=None)


def _read_recipe(run: Path) -> dict[str, Any]:
    try:
        return yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError):
        return {}


def _changed(run: Path) -> float:
    return max((file.stat().st_mtime for file in run.glob("*") if file.suffix in {".csv", ".ckpt"}), default=0.0)
