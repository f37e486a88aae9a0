"""One training run from a recipe to a folder: checkpoints, figures, pictures."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console

from pyrafuse.base.errors import DataError
from pyrafuse.base.interrupts import as_term
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.memory import keep_freed_memory
from pyrafuse.base.printable import hide_logins_in
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.core.storage import read_tensors
from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.data.loading.balancing import class_weights, count_images, repeat_factors
from pyrafuse.data.loading.loaders import create_eval_loader, create_train_loader, default_num_workers
from pyrafuse.data.loading.tiling import tile_splits
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.models.detector import Detector
from pyrafuse.training.advising import advise, apply
from pyrafuse.training.batches import find_least_memory, fit_batch, fit_gpu, fit_memory, memory_errors
from pyrafuse.training.folders import check_folder, is_first_process, open_folder
from pyrafuse.training.heartbeats import LostProcessError
from pyrafuse.training.launching import count_processes, go_on_after_restart, join_launcher
from pyrafuse.training.loggers.registry import LoggedRun, Loggers, check_loggers
from pyrafuse.training.loop import Course, Output, fit
from pyrafuse.training.pausing import Pauses
from pyrafuse.training.precision import choose_precision, spare
from pyrafuse.training.preparing import check_model, choose_devices, create_detector, with_absolute_paths
from pyrafuse.training.processes import Place, take_place
from pyrafuse.training.progress import FIRST_ESTIMATE, Narrator
from pyrafuse.training.reporting import draw_run
from pyrafuse.training.resuming import (
    Begun,
    compare_options,
    describe_done,
    match_classes,
    read_begun,
    take_advised,
)
from pyrafuse.training.schedule import mixed_epochs, scaled_epochs
from pyrafuse.training.screen import (
    Screen,
    describe_balance,
    describe_batches,
    describe_objects,
    describe_tiles,
    describe_time,
)
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.starting import settle
from pyrafuse.training.state import State, check_fits, create_state, read_content, restore
from pyrafuse.training.trial import estimate_seconds, time_image

DECODED_IN_CHECK = 2000
"""Data sets up to this many images are decoded whole before training; of larger ones headers are read only."""


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        folder: Everything is here.
        best: Checkpoint of the best evaluation.
        last: Checkpoint after the last epoch.
        evaluation: The best evaluation.
    """

    folder: Path
    best: Path
    last: Path
    evaluation: EvaluationResult


def train(recipe: Recipe, *, console: Console | None = None) -> TrainingResult:
    """Train by ``recipe``: read and check the data, fit, evaluate, keep the best, draw.

    Raises:
        PyrafuseError: If the recipe, the data or a checkpoint are at fault, the loss is no number, or nothing can be
            written; what was written before stays whole.
    """
    with as_term(recipe.run.stop_signal):
        return _train(recipe, console or Terminal(stderr=False))


def _train(recipe: Recipe, console: Console) -> TrainingResult:
    join_launcher(recipe.run)
    if not is_first_process():
        console = Terminal(quiet=True)  # the first one tells the same
    keep_freed_memory()
    is_asked_to_resume = recipe.run.resume
    recipe = replace(recipe, run=go_on_after_restart(recipe.run))
    check_folder(recipe.run)
    check_loggers(recipe.run.loggers)
    devices = choose_devices(recipe.run)
    recipe, start = settle(with_absolute_paths(recipe))
    begun = read_begun(recipe) if recipe.run.resume else None
    if begun and recipe.run.advice and not is_asked_to_resume:
        recipe = take_advised(recipe, begun)
    changes = compare_options(recipe, begun) if begun else []
    if begun and begun.is_complete:
        return _tell_complete(begun, console)
    check_model(recipe, start)
    seed_all(recipe.run.seed)
    splits = read_splits(
        recipe.data.path,
        val_fraction=recipe.data.val_fraction,
        seed=recipe.run.seed,
        train=recipe.data.train,
        val=recipe.data.val,
        rules=recipe.data.reading,
    )
    screen = Screen(console)
    screen.tell("data", splits.finding)
    if begun:
        splits = match_classes(splits, begun)
    _check(splits, recipe, console)
    tiles = tile_splits(splits, tile=recipe.data.tile, overlap=recipe.data.overlap)
    if recipe.data.tile is not None:
        screen.tell("tiles", describe_tiles(tiles, splits))
    splits = tiles.splits
    advised = () if begun else advise(recipe, splits.train, start)
    recipe, advice = apply(recipe, advised)
    asked, started = recipe, list[str]()
    processes = count_processes(devices)
    recipe = fit_batch(recipe, len(splits.train), processes=processes, say=screen.teller("batch"))
    detector = create_detector(recipe, splits.train, say=started.append, start=start)
    screen.tell("objects", describe_objects(splits.train, detector.card.preprocessing))
    for sentence in describe_balance(splits.train, recipe.data):
        screen.tell("classes", sentence)
    for sentence in advice:
        screen.tell("advice", sentence)
    parameters = sum(p.numel() for p in detector.parameters()) / 1e6
    screen.tell("model", f"{recipe.model.name}, {parameters:.1f} M parameters, {recipe.data.size} px")
    for sentence in started:
        screen.tell("start", sentence)
    if begun:
        check_fits(begun.path, detector, recipe)
    spare(detector)
    precision = choose_precision(
        recipe.run,
        detector,
        size=min(detector.card.preprocessing.size),
        began=begun.precision if begun else None,
        say=screen.teller("precision"),
    )
    with open_folder(recipe) as folder:
        with (
            memory_errors(recipe),
            _told_ends(folder, of=recipe.run.epochs),
            take_place(recipe.run, devices) as place,
        ):
            say = screen.teller("batch")
            if place.device.type == "cpu":
                recipe = fit_memory(detector, recipe, available=find_least_memory(), say=say)
            elif place.world_size == 1:  # each process would measure for itself, and all have to choose the same
                recipe = fit_gpu(detector, recipe, precision=precision, device=place.device, say=say)
            if place.is_first:
                lasting = to_plain(replace(asked, run=replace(asked.run, resume=False)))  # a copy of it starts anew
                write_text(folder / "recipe.yaml", yaml.safe_dump(lasting, sort_keys=False))
            course = create_course(recipe, splits, detector, precision=precision, place=place)
            output = _create_output(course, splits, detector, folder, to_plain(asked), console)
            state = create_state(detector, recipe, device=place.device, precision=precision)
            screen.tell("batch", describe_batches(course))
            if place.is_first and not console.quiet and recipe.run.epochs * len(course.batches) > FIRST_ESTIMATE:
                screen.tell("time", _estimate_time(course, output, state))
            screen.tell("output", str(folder))
            if begun:
                restore(state, read_content(begun.path), rank=place.rank, world_size=place.world_size)
                otherwise = f"; otherwise than it began: {', '.join(changes)}" if changes else ""
                screen.tell("output", f"resumed after {describe_done(begun.epochs, begun.epoch_steps)}{otherwise}")
            fit(state, course, output)
        assert state.best is not None, "the last epoch is always evaluated"
        if place.is_first:
            _report(folder, state.best)
    return TrainingResult(folder, folder / "best.ckpt", folder / "last.ckpt", state.best)


def seed_all(seed: int) -> None:
    """Seed every source of random numbers."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # parts from outside may draw from it
    torch.manual_seed(seed)


def create_course(recipe: Recipe, splits: Splits, detector: Detector, *, precision: str, place: Place) -> Course:
    """What stays as it is in the training of ``detector``, with this process's share of the training images."""
    data, run, schedule = recipe.data, recipe.run, recipe.schedule
    factors = repeat_factors(splits.train, data.repeat_threshold) if data.repeat_threshold else None
    batches = create_train_loader(
        splits.train,
        preprocessing=detector.card.preprocessing,
        augmentation=recipe.augmentation,
        batch_size=run.batch_size // run.accumulate,
        num_workers=default_num_workers() if data.workers is None else data.workers,
        seed=run.seed,
        sizes=data.sides,
        scale_epochs=scaled_epochs(schedule, epochs=run.epochs),
        mix_epochs=mixed_epochs(schedule, epochs=run.epochs),
        cache_mb=data.cache_mb,
        rank=place.rank,
        world_size=place.world_size,
        factors=factors,
        class_weights=class_weights(splits.train, data.class_weights, factors),
    )
    steps = count_images(splits.train, data.repeat_threshold) / (run.batch_size // run.accumulate)
    return Course(recipe, precision, place, batches, steps)


def _create_output(
    course: Course, splits: Splits, detector: Detector, folder: Path, values: dict[str, Any], console: Console
) -> Output:
    data, run, place = course.recipe.data, course.recipe.run, course.place
    batches = create_eval_loader(
        splits.val,
        preprocessing=detector.card.preprocessing,
        batch_size=max(1, run.batch_size // run.accumulate),
        num_workers=default_num_workers() if data.workers is None else data.workers,
        cache_mb=data.cache_mb,
        rank=place.rank,
        world_size=place.world_size,
    )
    every = run.evaluate_every or max(1, run.epochs // 10)
    narrator = Narrator(epochs=run.epochs, steps_per_epoch=len(course.batches), evaluate_every=every, console=console)
    loggers = Loggers(
        run.loggers if place.is_first else (),
        LoggedRun(folder, hide_logins_in(values), is_resumed=run.resume),
        say=lambda text: console.print(text, highlight=False, markup=False),
    )
    pauses = Pauses(run.checkpoint_minutes, device=place.device)
    return Output(folder, values, every, batches, splits.val, narrator, loggers, pauses)


def _estimate_time(course: Course, output: Output, state: State) -> str:
    """How long the training takes, in words, by a pass for an image."""
    run, place = course.recipe.run, course.place
    image_s = time_image(state.detector, course.recipe, precision=course.precision, device=place.device)
    epoch_s, run_s = estimate_seconds(
        image_s / place.world_size,
        num_train=round(course.steps_per_epoch * (run.batch_size // run.accumulate)),
        num_val=len(output.val_data),
        epochs=run.epochs,
        validations=-(-run.epochs // output.evaluate_every),
    )
    return describe_time(epoch_s, run_s, epochs=run.epochs)


def _report(folder: Path, evaluation: EvaluationResult) -> None:
    """Draw the run, and write its results last: where they are, everything is."""
    try:
        draw_run(folder, evaluation)
        write_text(folder / "results.json", json.dumps(evaluation.to_dict(), indent=1))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"all is trained; for the rest of the report: pyrafuse train --resume --output {folder}"
        ) from None


def _tell_complete(begun: Begun, console: Console) -> TrainingResult:
    """Leave a complete run as it is, but for a report that was cut off."""
    folder = begun.path.parent
    assert begun.best is not None, "the last epoch is always evaluated"
    console.print(
        f"{folder} is already complete: all {begun.epochs} epochs are trained; --epochs {2 * begun.epochs}, say, for "
        "more",
        highlight=False,
        markup=False,
    )
    if is_first_process() and not (folder / "results.json").is_file():
        with hold_folder(folder):
            _report(folder, begun.best)
    return TrainingResult(folder, folder / "best.ckpt", begun.path, begun.best)


@contextmanager
def _told_ends(folder: Path, *, of: int) -> Iterator[None]:
    """Say with an interrupt, or a process that is gone, what is saved and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_describe_saved(folder, of=of)) from None
    except LostProcessError as lost:
        raise LostProcessError(f"{lost}: all processes end; {_describe_saved(folder, of=of)}") from lost


def _describe_saved(folder: Path, *, of: int) -> str:
    if not (folder / "last.ckpt").exists():
        return "no step was saved, there is nothing to resume"
    content = read_tensors(folder / "last.ckpt")
    done = describe_done(content["epoch"] + 1, content.get("epoch_steps", 0), of=f" of {of}")
    return f"{done} are saved in {folder / 'last.ckpt'}; go on with: pyrafuse train --resume --output {folder}"


def _check(splits: Splits, recipe: Recipe, console: Console) -> None:
    num_images = len(splits.train) + len(splits.val)
    is_decoded = num_images <= DECODED_IN_CHECK
    report = check(splits, decode=is_decoded)
    if not is_decoded:
        console.print(
            f"{num_images} images: only their headers were checked; `pyrafuse data check` decodes all", highlight=False
        )
    if report.certain:
        console.print(report.details(report.certain), highlight=False, markup=False)
    if report.hints:
        Screen(console).tell("hints", f"{len(report.hints)} on what may be wrong; pyrafuse data check tells them")
    if console.quiet:
        report.raise_on_errors(strict=recipe.data.strict)  # nobody has read the report
    if report.errors or (recipe.data.strict and report.warnings):
        raise DataError(
            f"the data set has faults, told above: {len(report.errors)} to mend, {len(report.warnings)} warnings"
        )
