"""Places of guided anchors: around the centres of objects, each on the level made for its size.

Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, section 3.1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrafuse.assigners.max_iou import chunks
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets


@dataclass(frozen=True)
class LocationTargets:
    """What the location branch learns.

    Attributes:
        wanted: (B, A) float32, 1 in the centre region of an object.
        weights: (B, A) float32: 1 there, 0 around it and in its place on the neighbouring levels, else 0.1.
    """

    wanted: Tensor
    weights: Tensor


@ASSIGNERS.register("locations")
class LocationAssigner:
    """Mark the centre regions of the objects; one row a cell.

    Args:
        center_ratio: Side of the centre region in sides of the object.
        ignore_ratio: Side of the region around it that is ignored, on this level and the next ones.
        side: Side of the squares in strides: an object belongs to the level whose squares are nearest to it in size.
        background: Weight of cells outside.
    """

    def __init__(
        self, *, center_ratio: float = 0.2, ignore_ratio: float = 0.5, side: float = 4.0, background: float = 0.1
    ) -> None:
        if not 0 <= center_ratio <= ignore_ratio <= 1:
            raise ValueError(f"center_ratio {center_ratio} must not exceed ignore_ratio {ignore_ratio}, both in 0..1")
        self.center_ratio = center_ratio
        self.ignore_ratio = ignore_ratio
        self.side = side
        self.background = background

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets) -> LocationTargets:
        """Assign the G objects of each image."""
        grid = predictions.grid
        num_objects = targets.labels.shape[1]
        cells = (grid.anchors[:, :2] + grid.anchors[:, 2:]) / 2 / grid.strides[:, None]
        x, y = cells.round().unbind(dim=1)
        sides = targets.boxes[..., 2:] - targets.boxes[..., :2]
        size = sides.clamp(min=0).prod(dim=-1).sqrt().clamp(min=1e-6)
        own = (size.log2() - (self.side * grid.strides[0]).log2() + 0.5).floor().clamp(0, len(grid.counts) - 1)

        latest = torch.full((len(size), len(x)), -1, device=x.device)
        is_wanted = torch.zeros_like(latest, dtype=torch.bool)
        is_near = torch.zeros_like(is_wanted)
        for columns in chunks(4 * latest.numel(), num_objects):
            boxes = targets.boxes[:, None, columns] / grid.strides[:, None, None]  # (B, A, g, 4) in cells
            apart = (grid.levels[:, None] - own[:, None, columns]).abs()
            valid = targets.valid[:, None, columns]

            def covers(ratio: float, boxes: Tensor = boxes) -> Tensor:
                edge = (1 - ratio) / 2
                low = ((1 - edge) * boxes[..., :2] + edge * boxes[..., 2:]).round()
                high = (edge * boxes[..., :2] + (1 - edge) * boxes[..., 2:]).round()
                across = (low[..., 0] <= x[:, None]) & (x[:, None] <= high[..., 0])
                return across & (low[..., 1] <= y[:, None]) & (y[:, None] <= high[..., 1])

            center = covers(self.center_ratio) & valid & (apart == 0)
            around = covers(self.ignore_ratio) & valid
            # the last object whose region holds a cell says what it counts: even numbers ignore it, odd ones want it
            numbers = 2 * (torch.arange(boxes.shape[2], device=x.device) + columns.start) + center.long()
            latest = torch.maximum(latest, numbers.where(around & (apart == 0), -1).amax(dim=2))
            is_wanted |= center.any(dim=2)
            is_near |= (around & (apart == 1)).any(dim=2)
        weights = torch.full(latest.shape, self.background, device=x.device)
        weights = weights.masked_fill(is_near, 0).where(latest < 0, (latest % 2).to(weights.dtype))
        return LocationTargets(wanted=is_wanted.to(weights.dtype), weights=weights)
