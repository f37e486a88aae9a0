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

    def cells_of(self, rows: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W) bool of each level, finest first: whether any of the ``rows`` (B, A) of the cell is true."""
        found = []
        for starts, (width, height) in zip(self.starts, self.sizes.tolist(), strict=True):
            own = starts[:, None] + torch.arange(height * width, device=starts.device)  # (S, H * W)
            found.append(rows[:, own].any(dim=1).view(-1, height, width))
        return tuple(found)


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
class DenseGrid:
    """Where the A rows of a dense head stand: level by level, the finest first, by y, x, then anchor.

    Attributes:
        anchors: (A, 4) float32, xyxy in pixels of the network's input; a head of points has squares of one stride
            around them.
        strides: (A,) float32, pixels a cell.
        levels: (A,) int64, index into the pyramid, 0 the finest.
        counts: How many rows each level has; plain numbers, so that rows can be split without asking the device.
        sizes: Height and width of each level in cells.
    """

    anchors: Tensor
    strides: Tensor
    levels: Tensor
    counts: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def beyond(self, sizes: Tensor) -> Tensor:
        """(B, A) bool: the row's cell begins beyond ``sizes`` (B, 2), height and width in pixels."""
        places = []
        for count, (height, width) in zip(self.counts, self.sizes, strict=True):
            cells = torch.arange(height * width, device=self.strides.device)
            y_x = torch.stack((cells // width, cells % width), dim=-1)
            places.append(y_x.repeat_interleave(count // (height * width), dim=0, output_size=count))
        begins = torch.cat(places) * self.strides[:, None]
        return (begins >= sizes[:, None]).any(dim=-1)

    def cells_of(self, rows: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W) bool of each level, finest first: whether any of the ``rows`` (B, A) of the cell is true."""
        levels = zip(rows.split(self.counts, dim=1), self.sizes, strict=True)
        return tuple(x.view(len(x), *size, -1).any(dim=-1) for x, size in levels)


@dataclass(frozen=True)
class AnchorGuides:
    """What a head with guided anchors says about them (arXiv:1901.03278, section 3).

    Attributes:
        anchors: (B, A, 4) the grid's anchors after they were guided, xyxy in pixels; no gradient returns through them.
        shapes: (B, A, 2) log of the guided width and height relative to the grid's anchor.
        locations: (B, A) logits: does an object have its centre here?
        least_location: Rows less likely than this are not looked at in detection.
    """

    anchors: Tensor
    shapes: Tensor
    locations: Tensor
    least_location: float


@dataclass(frozen=True)
class DensePredictions:
    """Raw output of a dense head, all levels in one row of A anchors or points.

    Attributes:
        classes: (B, A, K) logits.
        deltas: (B, A, 4), a box relative to the row's anchor, as a `BoxCoder` reads it.
        quality: (B, A) logits of how well the box lies (centerness, or its IoU), where the head says so.
        grid: Where the rows stand.
        guides: What shaped the anchors, for heads that guide them.
    """

    classes: Tensor
    deltas: Tensor
    quality: Tensor | None
    grid: DenseGrid
    guides: AnchorGuides | None = None

    @property
    def anchors(self) -> Tensor:
        """(A, 4), or (B, A, 4) where they are guided: what ``deltas`` are relative to."""
        return self.grid.anchors if self.guides is None else self.guides.anchors


@dataclass(frozen=True)
class Candidates:
    """Every decoded candidate of a batch, before threshold and NMS.

    Attributes:
        boxes: (B, A, 4) float32, xyxy in pixels of the network's input, not clipped; (B, A, K, 4) where each class has
            a box of its own.
        scores: (B, A, K) float32 in 0..1.
        levels: (A,) int64, the pyramid level that each row came from, 0 the finest; (B, A) where images differ.
        quality: (B, A) float32 in 0..1, how well the box lies, where the head says so: multiplies the scores of the
            rows that pass the threshold.
        counts: Number of rows of each level, where the rows of a level follow each other and the numbers are known
            without asking the device.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor
    quality: Tensor | None = None
    counts: tuple[int, ...] = ()


for _leaves_forward in (AnchorGrid, GuidedPredictions, DenseGrid, AnchorGuides, DensePredictions, Candidates):
    torch.export.register_dataclass(_leaves_forward)
