"""YOLOv3's assignment with guided anchors: one anchor is matched to each object.

arXiv:1911.09516, section 3.1. An object belongs to the level of the anchor that its shape overlaps most, and to the
cell of its centre. Should the anchor-free guess of that cell fit better than the anchor did, the guess answers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.boxes import centers_and_sizes, shape_iou
from pyrafuse.ops.coders import guided_shapes


@dataclass(frozen=True)
class Claims:
    """Objects that claim rows of the predictions, C claims an image.

    Attributes:
        rows: (B, C) int64, the anchor claimed; 0 where not valid.
        objects: (C,) int64, which object of the image claims it. Where two claim one row, the later object has it.
        valid: (B, C) bool.
    """

    rows: Tensor
    objects: Tensor
    valid: Tensor


@dataclass(frozen=True)
class GuidedAssignment:
    """Matches of rows and objects.

    Attributes:
        positives: Rows that are matched to an object.
        shapes: Rows whose guided shape learns the object's, positives included.
    """

    positives: Claims
    shapes: Claims


@ASSIGNERS.register("guided_anchor", derived={"guided": lambda given: given["head"].guides is not None})
class GuidedAnchorAssigner:
    """Assign each object to its best anchor, or to the anchor-free guess of the same cell.

    The last slot of a cell is its anchor-free guess when ``guided``; see `YOLOv3Head`.
    """

    def __init__(self, *, guided: bool = True) -> None:
        self.guided = guided

    @torch.no_grad()
    def __call__(self, predictions: GuidedPredictions, targets: Targets) -> GuidedAssignment:
        """Assign the G objects of each image; everything is (B, G) at a time."""
        grid = predictions.grid
        num_anchors = grid.starts.shape[1] - self.guided
        centers, sizes = centers_and_sizes(targets.boxes)
        objects = torch.arange(sizes.shape[1], device=sizes.device)

        overlap = shape_iou(sizes[:, :, None], grid.shapes[grid.starts[:, :num_anchors].flatten()])
        best_iou, best = overlap.max(dim=-1)
        level, slot = best // num_anchors, best % num_anchors

        # a centre on the very border, or past it, belongs to the last cell
        last_cell = grid.sizes[level] - 1
        cell = (centers / grid.strides[grid.starts[level, 0]][..., None]).long()
        cell = torch.minimum(cell.clamp(min=0), last_cell)
        offset = cell[..., 1] * grid.sizes[level, 0] + cell[..., 0]
        anchor_rows = (grid.starts[level, slot] + offset).where(targets.valid, 0)
        if not self.guided:
            claims = Claims(rows=anchor_rows, objects=objects, valid=targets.valid)
            return GuidedAssignment(positives=claims, shapes=claims)

        free_rows = (grid.starts[level, -1] + offset).where(targets.valid, 0)
        free_shapes = guided_shapes(predictions).gather(1, free_rows[..., None].expand(-1, -1, 2))
        is_free_better = shape_iou(free_shapes, sizes) > best_iou
        return GuidedAssignment(
            positives=Claims(rows=free_rows.where(is_free_better, anchor_rows), objects=objects, valid=targets.valid),
            shapes=Claims(
                rows=torch.cat((anchor_rows, free_rows), dim=1),
                objects=objects.repeat(2),
                valid=targets.valid.repeat(1, 2),
            ),
        )
