"""What begins and ends an epoch: its batches; then last.ckpt, the validation, best.ckpt, a row of metrics.csv.

last.ckpt is written before the validation, with a note that it is due, and again after it: whatever ends the process
in between, the resumed run validates that epoch first.
"""

import csv
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import _FitLoop

from pyrafuse.base.writing import write_atomically
from pyrafuse.training.progress import Narrator

NEVER = 10**9
"""Epochs between validations of Lightning's own: `Epochs` decides when there is one."""


class FitLoop(_FitLoop):
    """Starts also when all epochs are trained: the last one's validation may still be due."""

    @classmethod
    def of(cls, trainer: L.Trainer) -> "FitLoop":
        """As the loop that ``trainer`` has."""
        loop = cls(trainer, min_epochs=trainer.fit_loop.min_epochs, max_epochs=trainer.fit_loop.max_epochs)
        loop.epoch_loop = trainer.fit_loop.epoch_loop
        return loop

    @property
    def skip(self) -> bool:
        """Never."""
        return False


class Epochs(Callback):
    """Begins and ends epochs.

    Args:
        folder: Folder of the run.
        epochs: Epochs of the run; the last one is always validated.
        evaluate_every: Epochs between validations.
        narrator: Told what each epoch brought.
    """

    def __init__(self, folder: Path, *, epochs: int, evaluate_every: int, narrator: Narrator) -> None:
        self._folder = folder
        self._epochs = epochs
        self._every = evaluate_every
        self._narrator = narrator
        self._due: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The epoch whose validation is due, with its metrics."""
        return {"due": self._due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what is due."""
        self._due = state_dict["due"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make up for a validation that was cut off."""
        if self._due is not None:
            self._validate(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the epoch of the batch sampler: order and augmentation depend on it alone."""
        trainer.train_dataloader.batch_sampler.set_epoch(trainer.current_epoch)  # type: ignore[union-attr]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what was trained, then validate where that is due."""
        epoch = trainer.current_epoch + 1
        metrics = _metrics(trainer, of_validation=False)
        if epoch % self._every == 0 or epoch == self._epochs:
            self._due = {"epoch": epoch, "metrics": metrics}
            self._save(trainer)
            self._validate(trainer)
        else:
            self._end(trainer, epoch, metrics)

    def _validate(self, trainer: L.Trainer) -> None:
        assert self._due is not None
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.restarting = False
        trainer.validating = True
        loop.run()
        trainer.training = True
        due, self._due = self._due, None
        self._end(trainer, due["epoch"], {**due["metrics"], **_metrics(trainer, of_validation=True)})

    def _end(self, trainer: L.Trainer, epoch: int, metrics: dict[str, float]) -> None:
        if trainer.is_global_zero:
            add_row(self._folder / "metrics.csv", epoch, metrics)
        self._narrator.tell_epoch(epoch, metrics)
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self._folder / "last.ckpt")


def _metrics(trainer: L.Trainer, *, of_validation: bool) -> dict[str, float]:
    """What was logged of the epoch, or of its validation."""
    return {
        key: float(value)
        for key, value in trainer.callback_metrics.items()
        if key.startswith("val/") is of_validation and not key.endswith("_step")
    }


def add_row(path: Path, epoch: int, metrics: dict[str, float]) -> None:
    """Add the row of ``epoch`` (from 1) to a CSV file; rows of epochs that are trained anew are replaced."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) < epoch]
    rows.append({"epoch": epoch, **{key.removesuffix("_epoch"): f"{value:.6g}" for key, value in metrics.items()}})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with write_atomically(path, "w") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
