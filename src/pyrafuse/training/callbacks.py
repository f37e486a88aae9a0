"""What watches a training: averaged weights, a stop at the first NaN, the phases of DropBlock."""

from collections import deque
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.storage import write_tensors
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
