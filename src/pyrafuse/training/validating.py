"""Losses on the validation images, which leave the training as it is: batch -> losses -> means over the images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from pyrafuse.core.losses import LevelLosses
from pyrafuse.criteria.normalizing import each_process_alone


@contextmanager
def validating(device: torch.device) -> Iterator[None]:
    """Within the block samples are drawn from the same seed each time, and the training's random numbers stay.

    Each process divides by its own objects: the last batches of processes need not be as many.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), each_process_alone():
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield


class MeanLosses:
    """Means over images of the losses of batches; they stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._batches: list[tuple[dict[str, Tensor], int]] = []
        self._others: list[Mapping[str, float]] = []

    def add(self, report: LevelLosses, *, num_images: int) -> None:
        """Count in the losses of a batch."""
        self._batches.append(({name: value.detach() for name, value in report.terms.items()}, num_images))

    def sums(self) -> dict[str, float]:
        """Losses times images of all batches added here, by name; ``images`` is their number."""
        if not self._batches:
            return {}
        names = list(self._batches[0][0])
        values = torch.stack([torch.stack([losses[name].float() for name in names]) for losses, _ in self._batches])
        counts = torch.tensor([count for _, count in self._batches], dtype=torch.float64)
        totals = (values.cpu().double() * counts[:, None]).sum(dim=0)
        return {**dict(zip(names, totals.tolist(), strict=True)), "images": counts.sum().item()}

    def merge(self, sums: Mapping[str, float]) -> None:
        """Count in the ``sums()`` of another process."""
        self._others.append(sums)

    def means(self) -> dict[str, float]:
        """``loss``, the mean over images of the sum of all terms, and ``loss_NAME`` of each; empty without images."""
        parts = [part for part in (self.sums(), *self._others) if part]
        if not parts:
            return {}
        total = {name: sum(part[name] for part in parts) for name in parts[0]}
        count = total.pop("images")
        terms = {f"loss_{name}": value / count for name, value in total.items()}
        return {"loss": sum(terms.values()), **terms}
