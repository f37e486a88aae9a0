"""The training loop, from its first to its last step.

    epoch: batches -> losses -> gradients -> weights -> averaged weights (-> last.ckpt, now and then)
    then:  last.ckpt -> validation -> best.ckpt -> a row of metrics.csv -> last.ckpt

last.ckpt is written before the validation, with a note that it is due, and again after it: whatever ends the process
in between, the resumed run validates that epoch first. Within an epoch it is written between two steps of the
optimiser: a resumed run then needs the place in the epoch and the sums of its means besides.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pyrafuse.base.records import DetectionData
from pyrafuse.core.storage import write_tensors
from pyrafuse.core.targets import Batch
from pyrafuse.data.loading.loaders import EvalBatch, Loader
from pyrafuse.training.finiteness import NaNGuard
from pyrafuse.training.loggers.registry import Loggers
from pyrafuse.training.modes import set_modes
from pyrafuse.training.optimizing import base_lr, set_rate
from pyrafuse.training.pausing import Pause, Pauses
from pyrafuse.training.processes import Place
from pyrafuse.training.progress import Narrator
from pyrafuse.training.reporting import PageWriter, add_row
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import Recipe
from pyrafuse.training.state import State, gather_own, own_of, to_content
from pyrafuse.training.step import Means, TrainingStep
from pyrafuse.training.validating import chosen_by, validate
from pyrafuse.training.watching import NeckWatch

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Course:
    """What stays as it is in a training, and that its steps need.

    Attributes:
        recipe: Recipe of the run.
        precision: What convolutions compute in: ``32``, ``bf16`` or ``fp16``.
        place: Device of this process, and its place among the others.
        batches: Batches of this process.
        steps_per_epoch: Images over batch size; a fraction says that the last batch is not full.
        watch: Takes note of what the neck does in a step.
    """

    recipe: Recipe
    precision: str
    place: Place
    batches: Loader[Batch]
    steps_per_epoch: float
    watch: NeckWatch = field(default_factory=NeckWatch)


@dataclass(frozen=True)
class Output:
    """What a training is validated on, where it writes and whom it tells.

    Attributes:
        folder: Folder of the run.
        recipe_values: The recipe as plain values, for the checkpoints.
        evaluate_every: Epochs between validations; the last epoch is always validated.
        val_batches: Validation images of this process.
        val_data: All validation images and their objects.
        narrator: Tells where the run stands.
        loggers: Take every figure; of the first process alone.
        pauses: Says when an epoch is saved before its end.
    """

    folder: Path
    recipe_values: Mapping[str, Any]
    evaluate_every: int
    val_batches: DataLoader[EvalBatch]
    val_data: DetectionData
    narrator: Narrator
    loggers: Loggers
    pauses: Pauses


@dataclass(frozen=True)
class Step:
    """One batch that was learnt.

    Attributes:
        number: From 1 in each epoch.
        batch: On the device.
        values: Scalars by the name that they are logged under, ``train/loss`` first.
        has_moved: Whether the weights were moved after it: the last of those that make one step.
    """

    number: int
    batch: Batch
    values: dict[str, Tensor]
    has_moved: bool


def learn(state: State, course: Course, step: nn.Module, *, epoch: int) -> Iterator[Step]:
    """Learn the batches of ``epoch`` (from 0) that are left of it, each when it is asked for.

    Args:
        state: Weights, optimiser and numbers of steps are moved.
        course: What stays as it is.
        step: `TrainingStep`, spread over the processes.
        epoch: Order, augmentation and learning rates depend on it.
    """
    recipe, device, optimizer, scaler = course.recipe, course.place.device, state.optimizer, state.scaler
    set_modes(state.detector, recipe, epoch=epoch)
    done = state.epoch_steps * recipe.run.accumulate
    course.batches.batch_sampler.start_at(epoch, done)  # type: ignore[union-attr]
    total = len(course.batches)
    for number, batch in enumerate(course.batches, done + 1):
        set_rate(optimizer, _rate(course, epoch, number))
        batch = batch.to(device, non_blocking=True)
        is_last = number % recipe.run.accumulate == 0 or number == total  # of those that make one step
        with step.no_sync() if isinstance(step, DistributedDataParallel) and not is_last else nullcontext():
            # without its cache, the gradients of weights that are used at every level are summed in float32
            with torch.autocast(device.type, HALF.get(course.precision), course.precision in HALF, cache_enabled=False):
                values = step(batch)
            scaler.scale(values["train/loss"] / recipe.run.accumulate).backward()
        values = {name: value.detach() for name, value in (values | course.watch.gradients).items()}
        if is_last:
            state.move(recipe)
            state.epoch_steps += 1
        yield Step(number, batch, values, is_last)
    state.epoch_steps = 0


def _rate(course: Course, epoch: int, number: int) -> float:
    """The learning rate of batch ``number`` (from 1), relative to the recipe's."""
    recipe = course.recipe
    return lr_factor(
        recipe.schedule,
        epoch=epoch,
        step=number - 1,
        steps_per_epoch=course.steps_per_epoch,
        epochs=recipe.run.epochs,
    )


def fit(state: State, course: Course, output: Output) -> None:
    """Train from where ``state`` stands to the last epoch, or until patience ends; keep the last and the best.

    Raises:
        PyrafuseError: If a loss is no number, or nothing can be written.
    """
    run, place = course.recipe.run, course.place
    if state.due is None and 0 < run.patience <= state.waited:
        state.waited = 0  # it had ended, and more epochs are wanted
    step = place.spread(TrainingStep(state.detector, course.watch), sync_bn=run.sync_bn)
    page = PageWriter(output.folder) if place.is_first else None
    try:
        done = state.epochs * len(course.batches) + state.epoch_steps * run.accumulate
        with output.narrator.telling(done=done):
            is_over = state.due is not None and _evaluate(state, course, output)
            while not is_over and state.epochs < run.epochs:
                with output.pauses.heeding(), course.batches.keeping_workers():
                    metrics = _train_epoch(state, course, output, step)
                    state.epochs += 1
                    if state.epochs % output.evaluate_every == 0 or state.epochs == run.epochs:
                        state.due = metrics
                        _save_last(state, course, output)
                    else:
                        _end_epoch(state, course, output, metrics)
                is_over = state.due is not None and _evaluate(state, course, output)
                if page is not None:
                    page.write_if_old(state.best)
    except BaseException:
        if page is not None:
            page.write_stopped(state.best)
        raise
    finally:
        output.loggers.close()


def _train_epoch(state: State, course: Course, output: Output, step: nn.Module) -> dict[str, float]:
    """Learn one epoch, or what is left of it; gives the means of what was logged."""
    epoch, total = state.epochs, len(course.batches)
    guard = NaNGuard(output.folder, look_every=1 if course.place.device.type == "cpu" else 10)
    output.narrator.begin_epoch()
    for learnt in learn(state, course, step, epoch=epoch):
        loss = learnt.values["train/loss"]
        output.narrator.tell_step(epoch + 1, learnt.number, loss)
        guard.remember(f"step {state.steps} (epoch {epoch + 1})", loss, learnt.batch)
        state.means.add(learnt.values, num_images=len(learnt.batch.images))
        if course.place.is_first and learnt.number % min(50, total) == 0:
            output.loggers.log({"train/loss_step": float(loss)}, state.steps)
        if learnt.has_moved and (pause := output.pauses.look(is_last=learnt.number == total)):
            guard.look()
            _save_last(state, course, output)
            if pause is Pause.END:
                output.pauses.end()
    guard.look()
    rates = (_rate(course, epoch, number) * base_lr(course.recipe) for number in range(1, total + 1))
    metrics = {"lr": fmean(rates), **state.means.compute()}
    state.means = Means()
    output.loggers.log({**metrics, "epoch": epoch + 1}, state.steps)
    return metrics


def _evaluate(state: State, course: Course, output: Output) -> bool:
    """Validate the last epoch, and keep it if it is the best; gives whether patience has ended."""
    assert state.due is not None
    run = course.recipe.run
    with output.narrator.validating(len(output.val_batches)) as tell:
        result, figures = validate(
            state.evaluated,
            output.val_batches,
            output.val_data,
            max_detections=run.max_detections,
            device=course.place.device,
            tell=tell,
        )
    output.loggers.log({**figures, "epoch": state.epochs}, state.steps)
    metrics, state.due = state.due | figures, None
    state.waited += 1
    if state.best is None or chosen_by(result) > chosen_by(state.best):
        state.best, state.waited = result, 0
        _save(state, course, output, "best.ckpt", [own_of(state)])
    _end_epoch(state, course, output, metrics)
    return 0 < run.patience <= state.waited


def _end_epoch(state: State, course: Course, output: Output, metrics: Mapping[str, float]) -> None:
    if course.place.is_first:
        add_row(output.folder / "metrics.csv", state.epochs, metrics)
    output.narrator.tell_epoch(state.epochs, metrics)
    _save_last(state, course, output)


def _save_last(state: State, course: Course, output: Output) -> None:
    """Save what the run goes on from, with what each process has of its own; called by all of them."""
    _save(state, course, output, "last.ckpt", gather_own(state))
    output.pauses.saved()


def _save(state: State, course: Course, output: Output, name: str, own: list[dict[str, Any]]) -> None:
    if course.place.is_first:
        content = to_content(state, own, recipe_values=output.recipe_values, precision=course.precision)
        write_tensors(output.folder / name, content)
