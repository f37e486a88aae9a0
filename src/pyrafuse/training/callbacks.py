"""What watches a training: averaged weights, a stop at the first NaN, and a voice that says where it stands."""

import csv
import time
from collections import deque
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from pyrafuse.core.errors import PyrafuseError
from pyrafuse.core.storage import write_atomically, write_tensors
from pyrafuse.core.targets import Batch
from pyrafuse.training.preparing import find_dropblocks
from pyrafuse.training.schedule import block_sizes
from pyrafuse.training.settings import DropBlockSettings


class WeightEMA(WeightAveraging):
    """Exponential moving average of weights and statistics, quick at first: decay min(d, (1 + n) / (10 + n))."""

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self._target = decay
        self._decay = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the model, once each value of its buffers has a place of its own: none is written into the others'."""
        for part in pl_module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                if 0 in buffer.stride():
                    part._buffers[name] = buffer.clone(memory_format=torch.contiguous_format)
        super().setup(trainer, pl_module, stage)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every step; sets the decay of this one."""
        if step_idx is None:
            return False
        self._decay = min(self._target, (1 + step_idx) / (10 + step_idx))
        return True

    def _average(self, averaged: list[Tensor], current: list[Tensor], _: Tensor | int) -> None:
        """All tensors of one type at a time."""
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self._decay)  # type: ignore[attr-defined]
        else:
            torch._foreach_copy_(averaged, current)  # type: ignore[attr-defined]


class NaNGuard(Callback):
    """Stop when a loss is not finite, with the batches at hand in a file.

    The loss is looked at a few steps late, so that the device never waits for the look.
    """

    def __init__(self, folder: Path, *, look_every: int) -> None:
        self._folder = folder
        self._look_every = look_every
        self._recent: deque[tuple[int, Tensor, Batch]] = deque(maxlen=look_every)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember this step, and look at the remembered ones now and then."""
        self._recent.append((trainer.global_step, outputs["loss"].detach(), batch))
        if (batch_idx + 1) % self._look_every:
            return
        losses = torch.stack([loss for _, loss, _ in self._recent]).tolist()
        for (step, _, seen), loss in zip(self._recent, losses, strict=True):
            if not torch.isfinite(torch.tensor(loss)):
                path = self._folder / "nan_batch.pt"
                write_tensors(
                    path, {"images": seen.images.cpu(), "indices": seen.indices, "targets": vars(seen.targets)}
                )
                raise PyrafuseError(
                    f"the loss became {loss} at step {step} (epoch {trainer.current_epoch + 1}); the batch is saved as "
                    f"{path}. Lower optimizer.lr, lengthen schedule.burn_in_epochs, or train in precision 32"
                )


class EpochStart(Callback):
    """Tell the loader which epoch it is, and the trainer whether this one is evaluated; the last one always is."""

    def __init__(self, *, epochs: int, evaluate_every: int) -> None:
        self._epochs = epochs
        self._every = evaluate_every

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the epoch of the batch sampler: order and augmentation depend on it alone."""
        trainer.train_dataloader.batch_sampler.set_epoch(trainer.current_epoch)  # type: ignore[union-attr]
        is_last = trainer.current_epoch + 1 == self._epochs
        trainer.check_val_every_n_epoch = 1 if is_last else self._every


class DropBlockSchedule(Callback):
    """Set the squares of the neck's DropBlocks as the epoch says; a resumed training finds its phase by its epoch."""

    def __init__(self, settings: DropBlockSettings) -> None:
        self._settings = settings

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set what this epoch drops.

        Raises:
            PyrafuseError: If the neck has not as many DropBlocks as the phases have sizes.
        """
        blocks = find_dropblocks(pl_module, self._settings)
        sizes = block_sizes(self._settings, epoch=trainer.current_epoch) or (0,) * len(blocks)
        for block, size in zip(blocks, sizes, strict=True):
            block.block_size = size
            block.keep_prob = self._settings.keep_prob


class History(Callback):
    """Write one row an epoch to a CSV file: losses, per-level losses and positives, learning rate, AP."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add this epoch's row; rows of epochs that are trained anew after a resume are replaced."""
        if not trainer.is_global_zero:
            return
        rows: list[dict[str, Any]] = []
        if self._path.exists():
            with self._path.open(newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) <= trainer.current_epoch]
        metrics = {k: f"{float(v):.6g}" for k, v in trainer.callback_metrics.items() if not k.endswith("_step")}
        is_evaluated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        kept = {k.removesuffix("_epoch"): v for k, v in metrics.items() if is_evaluated or not k.startswith("val/")}
        rows.append({"epoch": trainer.current_epoch + 1, **kept})
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with write_atomically(self._path, "w") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)


class Narrator(Callback):
    """A bar over the whole run with its remaining time, and a line after each evaluated epoch."""

    def __init__(self, *, epochs: int, steps_per_epoch: int, console: Console) -> None:
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin the bar where the run begins or goes on."""
        if not trainer.is_global_zero:
            return
        self._started = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=self._console,
            transient=True,
        )
        done = trainer.current_epoch * self._steps
        self._task = self._progress.add_task("training", total=self._epochs * self._steps, completed=done, loss="")
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; read the loss rarely, since reading waits for the device."""
        if self._progress is None:
            return
        fields = {}
        if batch_idx % 10 == 0 and self._console.is_terminal:
            fields["loss"] = f"loss {float(outputs['loss']):.3g}"
        self._progress.update(
            self._task, advance=1, description=f"epoch {trainer.current_epoch + 1}/{self._epochs}", **fields
        )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what the epoch brought."""
        if self._progress is None:
            return
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        elapsed = time.monotonic() - self._started
        line = (
            f"epoch {trainer.current_epoch + 1:>3}/{self._epochs}  {elapsed:6.0f} s  loss {metrics['train/loss']:.4g}"
        )
        is_evaluated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        if is_evaluated and "val/ap50" in metrics:
            line += f"  AP {metrics['val/ap']:.3f}  AP50 {metrics['val/ap50']:.3f}"
        elif is_evaluated and "val/ap" in metrics:
            line += "  no AP: the validation images hold no objects"
        self._console.print(line, highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error is read."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
