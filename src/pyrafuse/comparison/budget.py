"""One budget for all: every variant is built before anything is trained, and minutes become a number of epochs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.comparison.planning import Comparison
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.training.module import DetectionModule
from pyrafuse.training.precision import PRECISIONS, choose_precision, spare
from pyrafuse.training.preparing import create_detector
from pyrafuse.training.run import DetectionLoaders, quieten
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.starting import settle

TIMED_STEPS = 8
UNTIMED_STEPS = 3


@dataclass(frozen=True)
class Budget:
    """How long each run on one data set is.

    Attributes:
        epochs: Passes over the training images.
        steps: Batches an epoch of each variant, by its name.
        seconds: Of one step of each variant, where it was measured.
    """

    epochs: int
    steps: Mapping[str, int]
    seconds: Mapping[str, float]


def read_data(comparison: Comparison) -> dict[str, Splits]:
    """Every data set, by its name.

    Raises:
        DataError: If one cannot be read.
    """
    recipe = comparison.variants[0].recipe
    return {
        name: read_splits(
            path,
            val_fraction=recipe.data.val_fraction,
            seed=comparison.seeds[0],
            train=recipe.data.train,
            val=recipe.data.val,
            options=recipe.data.reading,
        )
        for name, path in comparison.data.items()
    }


def check_models(comparison: Comparison, splits: Mapping[str, Splits]) -> None:
    """Build every variant once, so that an error is met now and not after hours.

    Raises:
        PyrafuseError: If one cannot be built, with its name.
    """
    for variant in comparison.variants:
        for data in splits.values():
            try:
                create_detector(variant.recipe, data.train, say=lambda _: None)
            except (PyrafuseError, ValueError) as error:
                raise PyrafuseError(f"variant {variant.name!r}: {error}") from error


def settle_precision(
    comparison: Comparison,
    splits: Mapping[str, Splits],
    *,
    accelerator: str,
    threads: int | None = None,
    settled: str | None = None,
    say: Callable[[str], None],
) -> tuple[Comparison, str | None]:
    """The same comparison with one precision for all variants that leave it open, and which.

    Each training would measure for itself otherwise, and a difference of precision would look like one of variants.

    Args:
        comparison: What is compared.
        splits: The data sets; the first one's images and the first such variant's model are measured.
        accelerator: ``cpu``, ``gpu`` or ``mps``.
        threads: Threads of one run on a processor.
        settled: What an earlier call has chosen.
        say: Takes a sentence.
    """
    is_open = [variant.recipe.run.precision == "auto" for variant in comparison.variants]
    if not any(is_open):
        return comparison, None
    if settled is None:
        recipe, start = settle(comparison.variants[is_open.index(True)].recipe)
        detector = create_detector(recipe, next(iter(splits.values())).train, say=lambda _: None, start=start)
        spare(detector)
        run = replace(recipe.run, accelerator=accelerator, devices="auto", nodes=1)
        with _threads(threads):
            settled = choose_precision(run, detector, size=min(detector.card.preprocessing.size), began=None, say=say)
    variants = tuple(
        replace(v, recipe=replace(v.recipe, run=replace(v.recipe.run, precision=settled))) if auto else v
        for v, auto in zip(comparison.variants, is_open, strict=True)
    )
    return replace(comparison, variants=variants), settled


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_budget(
    comparison: Comparison,
    splits: Mapping[str, Splits],
    *,
    epochs: Mapping[str, int],
    accelerator: str,
    threads: int | None = None,
) -> dict[str, Budget]:
    """Epochs and steps on each data set.

    Args:
        comparison: What is compared.
        splits: The data sets.
        epochs: Of each data set, where an earlier call has set them; empty to set them now.
        accelerator: ``cpu``, ``gpu`` or ``mps``, for the steps that are timed.
        threads: Threads of one run on a processor.

    Raises:
        PyrafuseError: If an epoch of the slowest variant takes longer than the minutes that were given.
    """
    budgets = {}
    for name, data in splits.items():
        steps = {v.name: count_steps(v.recipe, len(data.train)) for v in comparison.variants}
        if name in epochs or comparison.minutes is None:
            given = epochs.get(name, comparison.variants[0].recipe.run.epochs)
            budgets[name] = Budget(given, steps, {})
            continue
        seconds = {
            v.name: time_steps(v.recipe, data, accelerator=accelerator, threads=threads) for v in comparison.variants
        }
        affordable = epochs_within(comparison.minutes, steps=steps, seconds=seconds)
        budgets[name] = Budget(affordable, steps, seconds)
    return budgets


def count_steps(recipe: Recipe, num_images: int) -> int:
    """Batches an epoch."""
    return math.ceil(num_images / (recipe.run.batch_size // recipe.run.accumulate))


def epochs_within(minutes: float, *, steps: Mapping[str, int], seconds: Mapping[str, float]) -> int:
    """Whole epochs that the slowest variant trains in ``minutes``.

    Args:
        minutes: Of one run.
        steps: Batches an epoch, by variant.
        seconds: Of one batch, by variant.

    Raises:
        PyrafuseError: If that is not even one.
    """
    slowest = max(steps, key=lambda name: steps[name] * seconds[name])
    epoch = steps[slowest] * seconds[slowest] / 60
    if epoch > minutes:
        raise PyrafuseError(
            f"one epoch of {slowest!r} takes about {epoch:.1f} minutes here, and a run may take {minutes:g}: give more "
            "minutes, a smaller size, or fewer images"
        )
    return int(minutes / epoch)


def time_steps(recipe: Recipe, data: Splits, *, accelerator: str, threads: int | None) -> float:
    """Median seconds of a training step with the recipe's own loader, model, criterion and optimiser."""
    quieten()
    with _threads(threads):
        recipe, start = settle(recipe)
        detector = create_detector(recipe, data.train, say=lambda _: None, start=start)
        spare(detector)
        steps = count_steps(recipe, len(data.train))
        module = DetectionModule(
            detector, recipe, val_data=data.val, steps_per_epoch=steps, recipe_values=to_plain(recipe)
        )
        quiet = replace(recipe, data=replace(recipe.data, cache_mb=64))
        watch = _Stopwatch()
        trainer = L.Trainer(
            max_steps=UNTIMED_STEPS + TIMED_STEPS,
            accelerator=accelerator,
            devices=1,
            precision=PRECISIONS[recipe.run.precision],  # type: ignore[arg-type]  # `settle_precision` chose
            accumulate_grad_batches=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=DetectionLoaders(data, quiet, detector.card.preprocessing))
    return median(watch.seconds[UNTIMED_STEPS:])


class _Stopwatch(Callback):
    """Seconds from the end of each step to the end of the next, the wait for its batch included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
        if pl_module.device.type != "cpu":
            torch.accelerator.synchronize(pl_module.device)
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
