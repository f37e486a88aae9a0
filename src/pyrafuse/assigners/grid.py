"""Rows in the cells that hold an object's centre are matched to the object they overlap most, and its best row always.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767, section 2.1, in mmdetection's form: every row of such a cell that
overlaps an object by more than the threshold is matched to it, not the best one alone.
"""

import numpy as np
import torch
from torch import Tensor

from pyrafuse.assigners.max_iou import MaxIoUAssigner, overlap_with
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import AnchorGrid, GuidedPredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.boxes import centers_and_sizes


@ASSIGNERS.register("grid")
class GridAssigner:
    """Assign by the IoU of a YOLO head's plain anchors, centred in their cells, with the objects.

    Args:
        positive_iou: Rows of a cell with a centre that overlap an object by more are matched to it. A row that is best
            for several objects goes to the last of them.
        negative_iou: Rows anywhere that overlap all objects by this much or less are background; the rest of the
            rows elsewhere is ignored.

    Raises:
        ValueError: If ``negative_iou`` lies above ``positive_iou``.
    """

    def __init__(self, *, positive_iou: float = 0.5, negative_iou: float = 0.5) -> None:
        positive, negative = (_next(threshold) for threshold in (positive_iou, negative_iou))
        self._anywhere = MaxIoUAssigner(positive_iou=positive, negative_iou=negative, match_best=False)
        self._in_cells = MaxIoUAssigner(positive_iou=positive, negative_iou=negative)

    @torch.no_grad()
    def __call__(self, predictions: GuidedPredictions, targets: Targets) -> Assignment:
        """Assign; what a guide says of the anchors' shapes is not read."""
        grid = predictions.grid
        centers, halves = (grid.cells + 0.5) * grid.strides[:, None], grid.shapes / 2
        overlap = overlap_with(torch.cat((centers - halves, centers + halves), dim=1))
        has_center = _has_center(grid, targets)
        anywhere = self._anywhere.by_overlap(overlap, len(centers), targets)
        in_cells = self._in_cells.by_overlap(overlap, len(centers), targets, ~has_center)
        elsewhere = torch.full_like(in_cells.objects, IGNORED).masked_fill(anywhere.is_negative, BACKGROUND)
        return Assignment(objects=in_cells.objects.where(has_center, elsewhere), overlaps=anywhere.overlaps)


def _has_center(grid: AnchorGrid, targets: Targets) -> Tensor:
    """(B, A) bool: the row's cell holds the centre of an object."""
    centers, _ = centers_and_sizes(targets.boxes)
    cells = (centers[:, :, None] / grid.strides[grid.starts[:, 0]][:, None]).floor().long()  # (B, G, L, 2)
    cells = torch.minimum(cells.clamp(min=0), grid.sizes - 1)
    rows = grid.starts + (cells[..., 1] * grid.sizes[:, 0] + cells[..., 0])[..., None]  # (B, G, L, S)
    num_rows = len(grid.cells)
    rows = rows.where(targets.valid[..., None, None], num_rows).flatten(1)  # past the end
    found = torch.zeros(len(rows), num_rows + 1, dtype=torch.bool, device=rows.device)
    return found.scatter(1, rows, value=True)[:, :num_rows]


def _next(threshold: float) -> float:
    """The least float32 above ``threshold``: reaching it is to exceed that."""
    return float(np.nextafter(np.float32(threshold), np.float32(2)))
