"""Losses as a training reports them: by term and by pyramid level."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LevelLosses:
    """Losses and positives by pyramid level, finest first.

    Attributes:
        losses: (L,) of each term; the loss of the batch is the sum of all.
        num_positives: (L,) float32, rows that answer for an object.
    """

    losses: dict[str, Tensor]
    num_positives: Tensor
