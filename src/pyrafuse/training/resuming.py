"""Whether a run can go on: with which options, on which classes, from which checkpoint. Nothing is written here.

What tells how fast or where a run is trained may change; what tells what is learnt may not: a run that goes on ends as
the uninterrupted one would, or says in which way it does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyrafuse.base.card import CARD_KEY
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.printable import counted, list_names
from pyrafuse.base.records import DetectionData
from pyrafuse.base.typed_values import create
from pyrafuse.data.formats.layout import Splits
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.training.reporting import read_history
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.state import read_content

UNSAID = frozenset({"data.workers", "data.cache_mb", "data.strict", "run.output", "run.resume", "run.devices",
                    "run.accelerator", "run.nodes", "run.checkpoint_minutes", "run.stop_signal", "run.loggers",
                    "run.advice", "run.by_hand"})  # fmt: skip
"""Settings that may change silently: the trained weights are the same, up to rounding."""
SAID = frozenset({"data.path", "data.train", "data.val", "data.missing", "run.epochs", "run.accumulate",
                  "run.fit_memory", "run.precision", "run.sync_bn", "run.evaluate_every", "run.max_detections",
                  "run.patience"})  # fmt: skip
"""Settings that may change, and are told: the run ends otherwise than it would have."""


@dataclass(frozen=True)
class Begun:
    """A run that was begun, as its last checkpoint tells.

    Attributes:
        path: The checkpoint.
        epochs: Trained, all of them whole.
        epoch_steps: Steps of the optimiser in the next one.
        values: The recipe as plain values; empty in a file that does not tell it.
        names: The classes.
        is_complete: Whether nothing is left to train or to validate.
        best: The best evaluation so far.
        precision: What convolutions computed in, as a recipe names it; None in a file that does not tell it.
    """

    path: Path
    epochs: int
    epoch_steps: int
    values: Mapping[str, Any]
    names: tuple[str, ...]
    is_complete: bool
    best: EvaluationResult | None
    precision: str | None


def read_begun(recipe: Recipe) -> Begun:
    """Read where the run in ``recipe.run.output`` stands.

    Raises:
        CheckpointError: If its last.ckpt cannot be read, or is no checkpoint of a training.
        DataError: If its metrics.csv is damaged.
        PyrafuseError: If it has more epochs behind it than the recipe wants.
    """
    assert recipe.run.output is not None
    path = Path(recipe.run.output) / "last.ckpt"
    content = read_content(path)
    read_history(path.parent)  # a damaged one is told now, not after an epoch
    epochs, epoch_steps = content["epoch"] + 1, content.get("epoch_steps", 0)
    values = content[CARD_KEY].get("recipe") or {}
    best = content.get("best_evaluation")
    if epochs + bool(epoch_steps) > recipe.run.epochs:
        raise PyrafuseError(
            f"the run in {path.parent} has {describe_done(epochs, epoch_steps)} behind it, and run.epochs is "
            f"{recipe.run.epochs}: give --epochs {epochs + bool(epoch_steps)} or more"
        )
    is_stopped = 0 < recipe.run.patience <= content["waited"]
    is_stopped = is_stopped and recipe.run.epochs <= _at(values, "run.epochs", recipe.run.epochs)
    is_stopped = is_stopped and recipe.run.patience == _at(values, "run.patience", recipe.run.patience)
    return Begun(
        path,
        epochs,
        epoch_steps,
        values,
        tuple(content[CARD_KEY]["card"]["names"]),
        is_complete=content["due"] is None and (epochs == recipe.run.epochs or is_stopped),
        best=None if best is None else EvaluationResult.from_dict(best),
        precision=content.get("precision"),
    )


def describe_done(epochs: int, epoch_steps: int, *, of: str = "") -> str:
    """``3 epochs and 120 steps of the next``; ``of`` stands behind the number of epochs."""
    rest = f" and {counted(epoch_steps, 'step')} of the next" if epoch_steps else ""
    return f"{epochs}{of} {'epoch' if epochs == 1 and not of else 'epochs'}{rest}"


def take_advised(recipe: Recipe, begun: Begun) -> Recipe:
    """The recipe that ``begun`` has with the advice it was given, with what may change silently of ``recipe``."""
    advised = create(Recipe, begun.values)
    own = {name.removeprefix("run.") for name in UNSAID if name.startswith("run.")} - {"advice", "by_hand"}
    return replace(advised, run=replace(advised.run, **{name: getattr(recipe.run, name) for name in own}))


def compare_options(recipe: Recipe, begun: Begun) -> list[str]:
    """What the run goes on with otherwise than it began, in words; ``recipe`` with absolute paths.

    Raises:
        PyrafuseError: If one of the changes would make it another run.
    """
    changes = list(_changes(begun.values, to_plain(recipe)))
    refused = [f"{name} {old} -> {new}" for name, old, new in changes if name not in SAID | UNSAID]
    if refused:
        folder = begun.path.parent
        raise PyrafuseError(
            f"a run goes on with the options it began with; here another one is wanted: {'; '.join(refused)}. Drop "
            f"what differs, or begin a new run from its weights: --model.start_from {folder / 'best.ckpt'} --output "
            "ANOTHER_FOLDER, without --resume"
        )
    return [f"{name} {old} -> {new}" for name, old, new in changes if name in SAID]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Any:
    """Name, old and new value of each setting that differs; those that only one version of the package knows do not."""
    for name in (
        old.keys() & new.keys() if not prefix.startswith(("model.options", "model.spec")) else old.keys() | new.keys()
    ):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _changes(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after


def _at(values: Mapping[str, Any], path: str, default: Any) -> Any:
    inner: Any = values
    for part in path.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            return default
        inner = inner[part]
    return inner


def match_classes(splits: Splits, begun: Begun) -> Splits:
    """The same data with the classes in the run's order; they are matched by their names.

    Raises:
        DataError: If the data have a class more, or one less.
    """
    now = splits.train.names
    if now == begun.names:
        return splits
    if set(now) != set(begun.names) or len(now) != len(begun.names):
        more = [name for name in now if name not in begun.names]
        less = [name for name in begun.names if name not in now]
        what = [*(["now has " + _list(more)] if more else []), *(["now lacks " + _list(less)] if less else [])]
        raise DataError(
            f"the data {' and '.join(what)}: the run in {begun.path.parent} learns {_list(begun.names)}; the data "
            f"have {_list(now)}. Resume with the classes it began with, or begin a new run from its weights: "
            f"--model.start_from {begun.path.with_name('best.ckpt')} --output ANOTHER_FOLDER, without --resume"
        )
    return replace(splits, train=_reorder(splits.train, begun.names), val=_reorder(splits.val, begun.names))


def _reorder(data: DetectionData, names: tuple[str, ...]) -> DetectionData:
    label_of = np.array([names.index(name) for name in data.names], np.int64)
    records = tuple(replace(record, labels=label_of[record.labels]) for record in data.records)
    category_ids = tuple(data.category_ids[data.names.index(name)] for name in names)
    return replace(data, records=records, names=names, category_ids=category_ids)


def _list(names: Any) -> str:
    return f"{counted(len(names), 'class', 'classes')} ({list_names(names, most=20)})"
