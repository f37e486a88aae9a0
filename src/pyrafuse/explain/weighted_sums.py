"""One weighted sum of a neck over one image, as plain arrays: its sources' weights and how strong its result is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrafuse.explain.ablation import Map


@dataclass(frozen=True, eq=False)
class Fusion:
    """One weighted sum of a neck over one image.

    Attributes:
        name: Name of what is fused: ``stride_8`` of ASFF, ``P4`` of a graph.
        sources: Names of what it is fused of.
        stride: Pixels of the network's input a cell.
        weights: (S,), or (S, h, w) where every position has its own.
        strength: (h, w), mean over channels of the fused map, absolute.
    """

    name: str
    sources: tuple[str, ...]
    stride: int
    weights: Map
    strength: Map

    @property
    def is_spatial(self) -> bool:
        """Whether every position has its own weights."""
        return self.weights.ndim == 3

    @property
    def shares(self) -> Map:
        """(S,) mean weight of each source over the image."""
        return self.weights.reshape(len(self.sources), -1).mean(axis=1)

    def weights_at(self, cells: NDArray[np.int64]) -> Map:
        """(N, S) weights in the ``cells`` (N, 2), x and y; of the nearest for one outside."""
        if not self.is_spatial:
            return np.repeat(self.weights[None], len(cells), axis=0)
        _, height, width = self.weights.shape
        column, row = cells.clip(0, (width - 1, height - 1)).T
        return self.weights[:, row, column].T
