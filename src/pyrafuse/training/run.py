"""One training run from a recipe to a folder: checkpoints, figures, pictures."""

import json
import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from torch.utils.data import DataLoader

from pyrafuse.base.errors import DataError
from pyrafuse.base.locking import hold_folder
from pyrafuse.base.memory import keep_freed_memory
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import counted
from pyrafuse.base.terminal import Terminal
from pyrafuse.base.writing import write_text
from pyrafuse.core.storage import read_tensors, write_tensors
from pyrafuse.core.targets import Batch
from pyrafuse.data.checks.checking import check
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.data.loading.loaders import EvalBatch, create_eval_loader, create_train_loader, default_num_workers
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.training.batches import check_memory, find_available_memory, fit_batch, memory_errors
from pyrafuse.training.callbacks import DropBlockSchedule, NaNGuard, WeightEMA
from pyrafuse.training.epochs import NEVER, Epochs, FitLoop
from pyrafuse.training.folders import check_folder, is_first_process, open_folder
from pyrafuse.training.launching import check_nodes
from pyrafuse.training.module import DetectionModule
from pyrafuse.training.precision import PRECISIONS, choose_precision, spare
from pyrafuse.training.preparing import check_model, choose_devices, create_detector, is_on_cpu, with_absolute_paths
from pyrafuse.training.progress import Narrator
from pyrafuse.training.reporting import ReportWriter, draw_run
from pyrafuse.training.resuming import Begun, check_fits, compare_options, match_classes, read_begun
from pyrafuse.training.schedule import mixed_epochs, scaled_epochs
from pyrafuse.training.settings import Recipe, to_plain
from pyrafuse.training.starting import settle

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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all; a full disk leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002
        """Write ``checkpoint`` beside ``path``, then rename it."""
        write_tensors(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Read a checkpoint as every other: nothing in it is executed."""
        return read_tensors(path)


class DetectionLoaders(L.LightningDataModule):
    """The loaders of a run; made when it is known how many processes share it."""

    def __init__(self, splits: Splits, recipe: Recipe, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._splits = splits
        self._recipe = recipe
        self._preprocessing = preprocessing
        self.first_epoch = 0

    def train_dataloader(self) -> "DataLoader[Batch]":
        """Batches of the training images, of this process's share."""
        data, run, schedule = self._recipe.data, self._recipe.run, self._recipe.schedule
        rank, world_size = self._share()
        loader = create_train_loader(
            self._splits.train,
            preprocessing=self._preprocessing,
            augmentation=self._recipe.augmentation,
            batch_size=run.batch_size // run.accumulate,
            num_workers=default_num_workers() if data.workers is None else data.workers,
            seed=run.seed,
            sizes=data.sides,
            scale_epochs=scaled_epochs(schedule, epochs=run.epochs),
            mix_epochs=mixed_epochs(schedule, epochs=run.epochs),
            cache_mb=data.cache_mb,
            rank=rank,
            world_size=world_size,
        )
        loader.batch_sampler.set_epoch(self.first_epoch)  # type: ignore[union-attr]
        return loader

    def val_dataloader(self) -> "DataLoader[EvalBatch]":
        """Batches of the validation images, of this process's share."""
        data = self._recipe.data
        rank, world_size = self._share()
        return create_eval_loader(
            self._splits.val,
            preprocessing=self._preprocessing,
            batch_size=max(1, self._recipe.run.batch_size // self._recipe.run.accumulate),
            num_workers=default_num_workers() if data.workers is None else data.workers,
            cache_mb=data.cache_mb,
            rank=rank,
            world_size=world_size,
        )

    def _share(self) -> tuple[int, int]:
        trainer = self.trainer
        assert trainer is not None
        return trainer.global_rank, trainer.world_size


def train(recipe: Recipe, *, console: Console | None = None) -> TrainingResult:
    """Train by ``recipe``: read and check the data, fit, evaluate, keep the best, draw.

    Raises:
        PyrafuseError: If the recipe, the data or a checkpoint are at fault, the loss is no number, or nothing can be
            written; what was written before stays whole.
    """
    console = console or Terminal(stderr=False)
    keep_freed_memory()
    check_folder(recipe.run)
    check_nodes(recipe.run)
    devices = choose_devices(recipe.run)
    recipe, start = settle(with_absolute_paths(recipe))
    begun = read_begun(recipe) if recipe.run.resume else None
    changes = compare_options(recipe, begun) if begun else []
    if begun and begun.is_complete:
        return _tell_complete(begun, console)
    check_model(recipe, start)
    L.seed_everything(recipe.run.seed, verbose=False)
    quieten()
    splits = read_splits(
        recipe.data.path,
        val_fraction=recipe.data.val_fraction,
        seed=recipe.run.seed,
        train=recipe.data.train,
        val=recipe.data.val,
        options=recipe.data.reading,
    )
    console.print(splits.finding, highlight=False, markup=False)
    if begun:
        splits = match_classes(splits, begun)
    _check(splits, recipe, console)
    say = partial(console.print, highlight=False, markup=False)
    asked, processes = recipe, recipe.run.nodes * (devices if isinstance(devices, int) else len(devices))
    recipe = fit_batch(recipe, len(splits.train), processes=processes, say=say)
    detector = create_detector(recipe, splits.train, say=say, start=start)
    if is_on_cpu(recipe.run):
        check_memory(detector, recipe, available=find_available_memory())
    batches = len(splits.train) / (recipe.run.batch_size // recipe.run.accumulate)
    module = DetectionModule(
        detector, recipe, val_data=splits.val, steps_per_epoch=batches, recipe_values=to_plain(asked)
    )
    loaders = DetectionLoaders(splits, recipe, detector.card.preprocessing)
    if begun:
        check_fits(begun, module)
        loaders.first_epoch = begun.epochs
    spare(detector)
    precision = choose_precision(
        recipe.run,
        detector,
        size=min(detector.card.preprocessing.size),
        began=begun.precision if begun else None,
        say=say,
    )
    with open_folder(recipe) as folder:
        return _fit(module, loaders, folder, begun, console, precision=precision, changes=changes)


def _fit(
    module: DetectionModule,
    loaders: DetectionLoaders,
    folder: Path,
    begun: Begun | None,
    console: Console,
    *,
    precision: str,
    changes: Sequence[str],
) -> TrainingResult:
    """Everything has been checked: write, train, and draw."""
    recipe, detector = module.recipe, module.detector
    values = module.recipe_values
    lasting = {**values, "run": {**values["run"], "resume": False}}  # whoever copies the recipe starts anew
    if is_first_process():
        write_text(folder / "recipe.yaml", yaml.safe_dump(lasting, sort_keys=False))
    steps = math.ceil(module.steps_per_epoch)
    trainer = _create_trainer(recipe, folder, steps=steps, console=console, precision=precision)
    trainer.fit_loop = FitLoop.of(trainer)
    # Lightning's answer to SIGTERM waits for the other processes; ours ends this one, and the others by that
    trainer._signal_connector.register_signal_handlers = lambda: None
    parameters = sum(p.numel() for p in detector.parameters()) / 1e6
    device = trainer.accelerator.__class__.__name__.removesuffix("Accelerator")
    console.print(
        f"{recipe.model.name}, {parameters:.1f} M parameters, {recipe.data.size} px, "
        f"{counted(recipe.run.epochs, 'epoch')} of {counted(steps, 'batch', 'batches')}, "
        f"on {trainer.num_devices} x {device}; into {folder}",
        highlight=False,
        markup=False,
    )
    if begun:
        otherwise = f"; otherwise than it began: {', '.join(changes)}" if changes else ""
        console.print(f"resumed after epoch {begun.epochs}{otherwise}", highlight=False, markup=False)
    detector.train()  # the trainer takes modes as they are, and parts that are frozen set their own only when told to
    last = folder / "last.ckpt"
    with memory_errors(recipe), _own_interrupts(folder, of=recipe.run.epochs):
        trainer.fit(module, datamodule=loaders, ckpt_path=last if begun else None, weights_only=True)
    assert module.best is not None, "the last epoch is always evaluated"
    if trainer.is_global_zero:
        _report(folder, module.best)
    return TrainingResult(folder, folder / "best.ckpt", last, module.best)


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
def _own_interrupts(folder: Path, *, of: int) -> Iterator[None]:
    """Lightning answers Ctrl-C with exit status 1 and goes on ignoring it: make it a `KeyboardInterrupt` again."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, KeyboardInterrupt):
            raise
        if (folder / "last.ckpt").exists():
            epochs = read_tensors(folder / "last.ckpt")["epoch"] + 1
            raise KeyboardInterrupt(
                f"{epochs} of {of} epochs are saved in {folder / 'last.ckpt'}; go on with: pyrafuse train --resume "
                f"--output {folder}"
            ) from None
        raise KeyboardInterrupt("no epoch was finished, there is nothing to resume") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _create_trainer(recipe: Recipe, folder: Path, *, steps: int, console: Console, precision: str = "32") -> L.Trainer:
    run = recipe.run
    every = run.evaluate_every or max(1, run.epochs // 10)
    narrator = Narrator(epochs=run.epochs, steps_per_epoch=steps, evaluate_every=every, console=console)
    has_gpu = torch.cuda.is_available() and run.accelerator in ("auto", "gpu")
    callbacks: list[Callback] = [
        narrator,
        NaNGuard(folder, look_every=10 if has_gpu else 1),
        Epochs(folder, epochs=run.epochs, evaluate_every=every, narrator=narrator),
        ReportWriter(folder),
    ]
    if recipe.dropblock.phases:
        callbacks.append(DropBlockSchedule(recipe.dropblock))
    if run.ema:
        callbacks.append(WeightEMA(run.ema))
    if run.patience:
        callbacks.append(EarlyStopping("val/ap", mode="max", patience=run.patience, check_on_train_epoch_end=False))
    common = {"dirpath": folder, "enable_version_counter": False, "auto_insert_metric_name": False}
    callbacks.append(
        ModelCheckpoint(filename="best", monitor="val/ap", mode="max", save_on_train_epoch_end=False, **common)
    )
    return L.Trainer(
        max_epochs=run.epochs,
        accelerator=run.accelerator,
        devices=choose_devices(run),
        num_nodes=run.nodes,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        accumulate_grad_batches=run.accumulate,
        gradient_clip_val=recipe.optimizer.clip_norm or None,
        sync_batchnorm=run.sync_bn and has_gpu,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=NEVER,
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        log_every_n_steps=min(50, steps),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _check(splits: Splits, recipe: Recipe, console: Console) -> None:
    num_images = len(splits.train) + len(splits.val)
    is_decoded = num_images <= DECODED_IN_CHECK
    report = check(splits, decode=is_decoded)
    if not is_decoded:
        console.print(
            f"{num_images} images: only their headers were checked; `pyrafuse data check` decodes all", highlight=False
        )
    if report.problems:
        console.print(report.details(), highlight=False, markup=False)
    if console.quiet:
        report.raise_on_errors(strict=recipe.data.strict)  # nobody has read the report
    if report.errors or (recipe.data.strict and report.warnings):
        raise DataError(
            f"the data set has faults, told above: {len(report.errors)} to mend, {len(report.warnings)} warnings"
        )


def quieten() -> None:
    """Keep Lightning's advice to itself: what a person needs is said here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
