"""One step of a training: batch -> losses by the name that they are logged under -> their means over an epoch."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pyrafuse.base.images.normalizing import normalize
from pyrafuse.core.losses import LevelCriterion, LevelLosses
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.models.detector import Detector
from pyrafuse.training.watching import NeckWatch


def level_losses(detector: Detector, predictions: Any, targets: Targets) -> LevelLosses:
    """Losses of ``predictions`` by term and pyramid level."""
    return cast("LevelCriterion", detector.criterion).by_level(predictions, targets)


class TrainingStep(nn.Module):
    """Detector and losses as one module, so that several processes see one ``forward``.

    Args:
        detector: Detector that learns.
        watch: Takes note of what the neck does.
    """

    def __init__(self, detector: Detector, watch: NeckWatch) -> None:
        super().__init__()
        self.detector = detector
        self._watch = watch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars of a batch; ``train/loss`` is what is learnt from."""
        images = normalize(self.detector.card.preprocessing, batch.images, batch.sizes)
        with self._watch.watching(self.detector.neck):
            predictions = self.detector(images, batch.targets, sizes=batch.sizes)
        report = level_losses(self.detector, predictions, batch.targets)
        terms, of_levels = report.terms, report.of_levels
        total = torch.stack(list(terms.values())).sum()
        self._watch.follow(total)
        values = {"train/loss": total}
        values |= {f"train/loss_{name}": value for name, value in terms.items()}
        for level, stride in enumerate(self.detector.neck.features.strides):
            values[f"level/stride_{stride}/loss"] = of_levels[level]
            values |= {f"level/stride_{stride}/loss_{name}": v[level] for name, v in report.losses.items()}
            values[f"level/stride_{stride}/positives"] = report.num_positives[level] / len(images)
        return values | self._watch.weights


class Means:
    """Means over the images of an epoch; they stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}

    @classmethod
    def from_plain(cls, plain: Iterable[Mapping[str, Any]], device: torch.device) -> "Means":
        """Means that go on from what `to_plain` gave, of one process or of several."""
        means = cls()
        for part in plain:
            means._count(tuple(part["names"]), part["sums"].to(device), part["images"])
        return means

    def to_plain(self) -> list[dict[str, Any]]:
        """What was counted in so far, for a checkpoint."""
        return [
            {"names": list(names), "sums": sums.cpu(), "images": images} for names, (sums, images) in self._sums.items()
        ]

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], *, num_images: int) -> None:
        """Count in the scalars of a batch."""
        row = torch.stack([value.float() for value in values.values()]) * num_images
        self._count(tuple(values), row, num_images)

    def _count(self, names: tuple[str, ...], row: Tensor, num_images: int) -> None:
        sums, images = self._sums.get(names, (torch.zeros_like(row), 0))
        self._sums[names] = sums + row, images + num_images

    def compute(self) -> dict[str, float]:
        """The means by name, over the images of all processes."""
        totals: dict[str, tuple[float, float]] = {}
        for names, (sums, images) in self._sums.items():
            both = torch.cat([sums, sums.new_tensor([images])])
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(both)
            *values, count = both.tolist()
            for name, value in zip(names, values, strict=True):
                before, images_before = totals.get(name, (0.0, 0.0))
                totals[name] = before + value, images_before + count
        return {name: value / count for name, (value, count) in totals.items()}
