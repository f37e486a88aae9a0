"""What flows out of a head and of the decoder, before any threshold."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnchorGrid:
    """Where the A anchors of a head stand: S slots in every cell of its L levels.

    The rows of one level and slot follow each other, by y, then x.

    Attributes:
        cells: (A, 2) float32, x and y of the anchor's cell, in cells of its level.
        shapes: (A, 2) float32, width and height in pixels of the network's input.
        strides: (A,) float32, pixels a cell.
        levels: (A,) int64, index into the pyramid, 0 the finest.
        starts: (L, S) int64, the first row of each level and slot, finest level first.
        sizes: (L, 2) int64, cells across and down.
        reach: Cells that a centre may lie outside its own.
    """

    cells: Tensor
    shapes: Tensor
    strides: Tensor
    levels: Tensor
    starts: Tensor
    sizes: Tensor
    reach: float = 0.0

    @property
    def extent(self) -> Tensor:
        """(2,) width and height of the network's input in pixels: where the last cell of the finest level ends."""
        return (self.cells[-1] + 1) * self.strides[-1]


@dataclass(frozen=True)
class GuidedPredictions:
    """Raw output of a guided-anchoring YOLO head, all levels in one row of A anchors.

    Attributes:
        deltas: (B, A, 4) logits of the centre inside its cell, and log size relative to the guided shape.
        objectness: (B, A) logits.
        classes: (B, A, K) logits.
        guides: (B, A, 2) log of the guided shape relative to the anchor's own.
        grid: The anchors.
    """

    deltas: Tensor
    objectness: Tensor
    classes: Tensor
    guides: Tensor
    grid: AnchorGrid


@dataclass(frozen=True)
class Candidates:
    """Every decoded candidate of a batch, before threshold and NMS.

    Attributes:
        boxes: (B, A, 4) float32, xyxy in pixels of the network's input, not clipped.
        scores: (B, A, K) float32 in 0..1.
        levels: (A,) int64, the pyramid level that each row came from, 0 the finest.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor


for _leaves_forward in (AnchorGrid, GuidedPredictions, Candidates):
    torch.export.register_dataclass(_leaves_forward)
