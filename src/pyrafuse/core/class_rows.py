"""Which rows of a head's last layers belong to which class, so that a class keeps its rows in another detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassRows:
    """Layout of dimension 0 of a layer's weight and bias: groups of ``before + K * width + after`` rows.

    A group is an anchor, or the whole layer. A head tells the layout of each such layer in its attribute
    ``class_rows``, by the layer's name within the head; all its other parameters have the same shape for every K.

    Attributes:
        before: Rows of a group before those of its classes, such as a box and its objectness.
        width: Rows for each class.
        after: Rows of a group after those of its classes, such as the background.
    """

    before: int = 0
    width: int = 1
    after: int = 0

    def copy(
        self, theirs: Tensor, ours: Tensor, pairs: Sequence[tuple[int, int]], *, num_theirs: int, num_ours: int
    ) -> bool:
        """Copy the rows of classes, and those that are of no class, from ``theirs`` into ``ours``.

        Args:
            theirs: (G * (before + K' * width + after), ...).
            ours: (G * (before + K * width + after), ...), changed in place.
            pairs: (class in ``theirs``, class in ``ours``) of each class that both have.
            num_theirs: Number of their classes, K'.
            num_ours: Number of our classes, K.

        Returns:
            Whether the two have the same number of groups and the same shape otherwise; if not, nothing is copied.
        """
        sizes = [self.before + number * self.width + self.after for number in (num_theirs, num_ours)]
        groups = [len(x) // size for x, size in zip((theirs, ours), sizes, strict=True)]
        if groups[0] != groups[1] or theirs.shape[1:] != ours.shape[1:]:
            return False
        if [len(theirs), len(ours)] != [number * size for number, size in zip(groups, sizes, strict=True)]:
            return False
        taken, filled = (
            self._rows([pair[side] for pair in pairs], number) for side, number in enumerate((num_theirs, num_ours))
        )
        source = theirs.unflatten(0, (groups[0], sizes[0]))
        ours.unflatten(0, (groups[1], sizes[1]))[:, filled] = source[:, taken].to(ours.dtype)
        return True

    def _rows(self, classes: Sequence[int], num_classes: int) -> Tensor:
        """Rows of a group that are of no class, and those of ``classes`` in their order."""
        end = self.before + num_classes * self.width
        of_classes = self.before + torch.tensor(classes, dtype=torch.long)[:, None] * self.width
        return torch.cat(
            (
                torch.arange(self.before),
                (of_classes + torch.arange(self.width)).flatten(),
                torch.arange(end, end + self.after),
            )
        )
