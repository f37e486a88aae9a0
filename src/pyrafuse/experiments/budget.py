"""One budget for all: every recipe is built before anything is trained, and minutes become a number of epochs."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, islice, pairwise
from statistics import median

import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.loading.balancing import count_images
from pyrafuse.data.loading.tiling import tile_splits
from pyrafuse.training.loop import learn
from pyrafuse.training.precision import choose_precision, spare
from pyrafuse.training.preparing import create_detector
from pyrafuse.training.processes import Place, device_type
from pyrafuse.training.run import create_course
from pyrafuse.training.settings import Recipe
from pyrafuse.training.starting import settle
from pyrafuse.training.state import create_state
from pyrafuse.training.step import TrainingStep

TIMED_STEPS = 8
UNTIMED_STEPS = 3


@dataclass(frozen=True)
class Budget:
    """How long each run on one data set is.

    Attributes:
        epochs: Passes over the training images.
        steps: Batches an epoch, by the recipe's name.
        seconds: Seconds of one step, by the recipe's name, where it was measured.
    """

    epochs: int
    steps: Mapping[str, int]
    seconds: Mapping[str, float]


def check_models(recipes: Mapping[str, Recipe], data: Iterable[Splits]) -> None:
    """Build the detector of every recipe once, so that an error is met now and not after hours.

    Args:
        recipes: Recipes by name.
        data: The data sets that they will be trained on.

    Raises:
        PyrafuseError: If one cannot be built, with its name.
    """
    for splits in data:
        for name, recipe in recipes.items():
            try:
                create_detector(recipe, splits.train, say=lambda _: None)
            except (PyrafuseError, ValueError) as error:
                raise PyrafuseError(f"variant {name!r}: {error}") from error


def settle_precision(
    recipes: Mapping[str, Recipe],
    data: Splits,
    *,
    accelerator: str,
    threads: int | None = None,
    settled: str | None = None,
    say: Callable[[str], None],
) -> tuple[dict[str, Recipe], str | None]:
    """The same recipes with one precision for all that leave it open, and which.

    Each training would measure for itself otherwise, and a difference of precision would look like one of recipes.

    Args:
        recipes: Recipes by name.
        data: Its images and the first open recipe's model are measured.
        accelerator: ``cpu``, ``gpu`` or ``mps``.
        threads: Threads of one run on a processor.
        settled: What an earlier call has chosen.
        say: Takes a sentence.
    """
    first = next((recipe for recipe in recipes.values() if recipe.run.precision == "auto"), None)
    if first is None:
        return dict(recipes), None
    if settled is None:
        recipe, start = settle(first)
        detector = create_detector(recipe, data.train, say=lambda _: None, start=start)
        spare(detector)
        run = replace(recipe.run, accelerator=accelerator, devices="auto", nodes=1)
        with _threads(threads):
            settled = choose_precision(run, detector, size=min(detector.card.preprocessing.size), began=None, say=say)
    return {
        name: replace(r, run=replace(r.run, precision=settled)) if r.run.precision == "auto" else r
        for name, r in recipes.items()
    }, settled


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_budget(
    recipes: Mapping[str, Recipe],
    data: Splits,
    *,
    epochs: int | None = None,
    minutes: float | None = None,
    accelerator: str,
    threads: int | None = None,
) -> Budget:
    """Epochs and steps of each recipe on one data set.

    Args:
        recipes: Recipes by name.
        data: The data set.
        epochs: What an earlier call has set; by default as ``minutes`` allow, or the first recipe's own.
        minutes: How long one run of the slowest recipe may train.
        accelerator: ``cpu``, ``gpu`` or ``mps``, for the steps that are timed.
        threads: Threads of one run on a processor.

    Raises:
        PyrafuseError: If an epoch of the slowest recipe takes longer than ``minutes``.
    """
    steps = {
        name: count_steps(recipe, count_images(_in_tiles(data, recipe).train, recipe.data.repeat_threshold))
        for name, recipe in recipes.items()
    }
    if epochs is not None or minutes is None:
        return Budget(epochs or next(iter(recipes.values())).run.epochs, steps, {})
    seconds = {
        name: time_steps(recipe, data, accelerator=accelerator, threads=threads) for name, recipe in recipes.items()
    }
    return Budget(epochs_within(minutes, steps=steps, seconds=seconds), steps, seconds)


def _in_tiles(data: Splits, recipe: Recipe) -> Splits:
    return tile_splits(data, tile=recipe.data.tile, overlap=recipe.data.overlap).splits


def count_steps(recipe: Recipe, num_images: int) -> int:
    """Batches an epoch."""
    return math.ceil(num_images / (recipe.run.batch_size // recipe.run.accumulate))


def epochs_within(minutes: float, *, steps: Mapping[str, int], seconds: Mapping[str, float]) -> int:
    """Whole epochs that the slowest recipe trains in ``minutes``.

    Args:
        minutes: Minutes of one run.
        steps: Batches an epoch, by the recipe's name.
        seconds: Seconds of one batch, by the recipe's name.

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
    """Median seconds of a training step with the recipe's own loader, model, criterion and optimiser.

    It is measured from the end of a step to the end of the next, the wait for its batch included.
    """
    with _threads(threads):
        recipe, start = settle(recipe)
        data = _in_tiles(data, recipe)
        detector = create_detector(recipe, data.train, say=lambda _: None, start=start)
        spare(detector)
        run = replace(recipe.run, accelerator=accelerator)  # type: ignore[arg-type]
        recipe = replace(recipe, data=replace(recipe.data, cache_mb=64), run=run)
        place = Place(torch.device(device_type(run)))
        course = create_course(recipe, data, detector, precision=run.precision, place=place)  # `settle_precision` chose
        state = create_state(detector, recipe, device=place.device, precision=run.precision)
        step = TrainingStep(detector, course.watch)
        steps = chain.from_iterable(learn(state, course, step, epoch=epoch) for epoch in count())
        ends = []
        for _ in islice(steps, 1 + UNTIMED_STEPS + TIMED_STEPS):
            if place.device.type != "cpu":
                torch.accelerator.synchronize(place.device)
            ends.append(time.perf_counter())
    return median(end - before for before, end in pairwise(ends[UNTIMED_STEPS:]))
