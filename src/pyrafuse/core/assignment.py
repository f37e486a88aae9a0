"""Matches of predicted rows to objects: what assigners give, samplers thin out and criteria read."""

from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND = -1
"""The row is background."""
IGNORED = -2
"""The row is neither right nor wrong, whatever it finds."""


@dataclass(frozen=True)
class Assignment:
    """The object of each of the A rows of B images.

    Attributes:
        objects: (B, A) int64: index of the row's object among the G of its image, or `BACKGROUND`, or `IGNORED`.
        overlaps: (B, A) float32, the overlap by which that was decided; 0 where there was none, negative where the row
            was excused, by a crowd or because it lies in padding.
    """

    objects: Tensor
    overlaps: Tensor

    @property
    def is_positive(self) -> Tensor:
        """(B, A) bool: is matched to an object."""
        return self.objects >= 0

    @property
    def is_negative(self) -> Tensor:
        """(B, A) bool: is background."""
        return self.objects == BACKGROUND

    def of_rows(self, values: Tensor) -> Tensor:
        """Values (B, G, ...) of each row's object -> (B, A, ...); zeros where there is none."""
        rows = self.objects.clamp(min=0)
        if values.shape[1] == 0:
            return values.new_zeros(*rows.shape, *values.shape[2:])
        shape = (*rows.shape, *values.shape[2:])
        view = rows.view(*rows.shape, *[1] * (values.ndim - 2)).expand(shape)
        mask = self.is_positive.view(view.shape[:2] + (1,) * (values.ndim - 2))
        return values.gather(1, view).where(mask, torch.zeros((), dtype=values.dtype, device=values.device))
