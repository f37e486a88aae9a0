"""Losses as criteria tell them: by term and by pyramid level, and the rows that they were matched on."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyrafuse.core.targets import Targets


@dataclass(frozen=True)
class LevelLosses:
    """Losses and positives by pyramid level, finest first.

    Attributes:
        losses: (L,) of each term; the loss of the batch is the sum of all.
        num_positives: (L,) float32, rows that are matched to an object.
        is_positive: (B, A) bool, which rows of the dense predictions these are; the grid's `cells` tells where.
    """

    losses: dict[str, Tensor]
    num_positives: Tensor
    is_positive: Tensor

    @property
    def terms(self) -> dict[str, Tensor]:
        """Each term as one number, the sum over its levels."""
        return {name: values.sum() for name, values in self.losses.items()}

    @property
    def of_levels(self) -> Tensor:
        """(L,) loss of each level, the sum over its terms."""
        return torch.stack(list(self.losses.values())).sum(dim=0)


@runtime_checkable
class LevelCriterion(Protocol):
    """A criterion that knows its losses by pyramid level: what training and explanations ask of any."""

    def by_level(self, predictions: Any, targets: Targets) -> LevelLosses: ...


def sum_by_level(values: Tensor, levels: Tensor, num_levels: int) -> Tensor:
    """Sums (L,) of ``values`` (B, A) over the rows of each level; ``levels`` is (A,), or (B, A) where images differ.

    Without atomic additions, so that a GPU sums in the same order each time.
    """
    if levels.ndim < values.ndim:
        values = values.sum(dim=0)
    is_own = levels.flatten() == torch.arange(num_levels, device=levels.device)[:, None]
    return values.flatten().where(is_own, 0).sum(dim=1)
