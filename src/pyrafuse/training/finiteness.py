"""A stop when a loss is no number, with the batch at hand in a file."""

import math
from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.storage import write_tensors
from pyrafuse.core.targets import Batch


class NaNGuard:
    """Looks at losses some steps late, so that the device never waits for the look.

    Args:
        folder: Folder of the run.
        look_every: Steps between looks.
    """

    def __init__(self, folder: Path, *, look_every: int) -> None:
        self._folder = folder
        self._look_every = look_every
        self._recent: deque[tuple[str, Tensor, Batch]] = deque(maxlen=look_every)

    def remember(self, where: str, loss: Tensor, batch: Batch) -> None:
        """Remember the loss () of a step, and look at the remembered ones now and then.

        Raises:
            PyrafuseError: On the same faults as `look`.
        """
        self._recent.append((where, loss, batch))
        if len(self._recent) == self._look_every:
            self.look()

    def look(self) -> None:
        """Look at what is remembered.

        Raises:
            PyrafuseError: If a loss is not finite; the batch is saved.
        """
        if not self._recent:
            return
        for (where, _, batch), loss in zip(
            self._recent, torch.stack([loss for _, loss, _ in self._recent]).tolist(), strict=True
        ):
            if not math.isfinite(loss):
                path = self._folder / "nan_batch.pt"
                write_tensors(
                    path, {"images": batch.images.cpu(), "indices": batch.indices, "targets": vars(batch.targets)}
                )
                raise PyrafuseError(
                    f"the loss became {loss} at {where}; the batch is saved as "
                    f"{path}. Lower optimizer.lr, lengthen schedule.burn_in_epochs, or train in precision 32"
                )
        self._recent.clear()
