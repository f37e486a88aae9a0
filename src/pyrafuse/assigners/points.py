"""Points inside an object are matched to it, on the level made for its size; the smallest object first.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355, sections 3.1 and 3.2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyrafuse.assigners.max_iou import chunks
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.assignment import BACKGROUND, Assignment
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.boxes import box_area, centers_and_sizes

NO_BOUND = 1e8
"""Pixels that no distance reaches, and a number that every format can hold."""

RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, NO_BOUND))


def ranges_for(strides: Sequence[int]) -> tuple[tuple[float, float], ...]:
    """The paper's rule for any levels: from four strides to eight, and the ends open; `RANGES` for its own.

    Args:
        strides: Pixels a cell of each level, finest first.
    """
    bounds = [8.0 * stride for stride in strides[:-1]]
    return tuple(zip((-1.0, *bounds), (*bounds, NO_BOUND), strict=True))


@ASSIGNERS.register("points", derived={"ranges": lambda given: ranges_for(given["features"].strides)})
class PointAssigner:
    """Assign each point, the centre of its row's anchor, to the smallest object around it.

    Args:
        ranges: For each level, finest first, the least and greatest distance in pixels from a point to the farthest
            side of its object, both included; in a detector, those of its strides.
        radius: None takes all points of an object; a number only those within so many strides of its centre on both
            axes (the paper's later centre sampling, with 1.5).
    """

    def __init__(self, *, ranges: Sequence[tuple[float, float]] = RANGES, radius: float | None = None) -> None:
        self.ranges = tuple(ranges)
        self.radius = radius

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Assign; the overlaps are 0, for none decides.

        Raises:
            ValueError: If the ranges are not one a level.
        """
        grid = predictions.grid
        if len(self.ranges) != len(grid.counts):
            raise ValueError(f"{len(grid.counts)} levels need as many ranges, got {self.ranges}")
        batch, num_objects = targets.labels.shape
        device = targets.boxes.device
        points, _ = centers_and_sizes(predictions.anchors.expand(batch, -1, -1))
        bounds = torch.tensor(self.ranges).to(device, non_blocking=True)[grid.levels]
        smallest = torch.full(points.shape[:2], math.inf, device=device)
        objects = torch.full(points.shape[:2], BACKGROUND, device=device)
        for columns in chunks(4 * points.numel(), num_objects):
            boxes, valid = targets.boxes[:, None, columns], targets.valid[:, None, columns]
            farthest, is_inside = self._look(points[:, :, None], boxes, grid.strides)
            fits = (farthest >= bounds[:, :1]) & (farthest <= bounds[:, 1:])
            area = box_area(boxes).where(is_inside & fits & valid, math.inf)
            least, place = area.min(dim=2)
            is_better = least < smallest
            smallest = least.where(is_better, smallest)
            objects = (place + columns.start).where(is_better, objects)
        return Assignment(objects=objects, overlaps=torch.zeros_like(smallest))

    def _look(self, points: Tensor, boxes: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
        """Distance (B, A, G) of each point to the farthest side, and whether it may be matched to the object."""
        before, after = points - boxes[..., :2], boxes[..., 2:] - points
        farthest = torch.maximum(before, after).amax(dim=-1)
        if self.radius is not None:
            centers, _ = centers_and_sizes(boxes)
            reach = (strides * self.radius)[:, None, None]
            low, high = centers - reach, centers + reach
            before = points - torch.maximum(low, boxes[..., :2])
            after = torch.minimum(high, boxes[..., 2:]) - points
        return farthest, torch.minimum(before, after).amin(dim=-1) > 0
