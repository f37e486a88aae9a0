"""Several rows for each object, chosen by what they already predict.

The dynamic top-k of YOLOX's SimOTA (Ge et al., arXiv:2107.08430) among the anchors near an object's centre, with the
alignment of score and overlap of TOOD (Feng et al., arXiv:2108.07755) as the quality. Looking only around the centre
keeps the work in proportion to the objects, not to objects times rows.
"""

import torch
from torch import Tensor

from pyrafuse.assigners.guided_anchor import Claims, GuidedAssignment
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.errors import check_count
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.boxes import centers_and_sizes, paired_iou, shape_iou
from pyrafuse.ops.coders import decode_rows


@ASSIGNERS.register("neighbours")
class NeighbourAssigner:
    """Match the best rows around an object's centre, on all levels and slots, to it.

    Args:
        radius: Cells around the cell of the centre that are looked at, on each level; the head's ``reach`` must allow
            a centre that far away.
        top_k: Maximum number of rows per object; the number is the sum of their overlaps with it, at least one.
        shape_iou: Overlap in shape with an object that an anchor, before it is guided, must have to be looked at; the
            best one always is. It keeps objects on the level whose receptive field is made for their size.
        score_power: Power of the predicted score in a row's quality.
        iou_power: Power of the overlap in a row's quality.
    """

    def __init__(
        self,
        *,
        radius: int = 1,
        top_k: int = 10,
        shape_iou: float = 0.3,
        score_power: float = 0.5,
        iou_power: float = 3.0,
    ) -> None:
        check_count("radius", radius)
        check_count("top_k", top_k, 1)
        self.radius = radius
        self.top_k = top_k
        self.shape_iou = shape_iou
        self.score_power = score_power
        self.iou_power = iou_power

    @torch.no_grad()
    def __call__(self, predictions: GuidedPredictions, targets: Targets) -> GuidedAssignment:
        """Assign the G objects of each image; everything is (B, G, candidates) at a time."""
        batch, num_objects = targets.labels.shape
        rows, is_inside = self._candidates(predictions, targets)
        flat = rows.flatten(1)
        boxes = decode_rows(predictions, flat).view(batch, num_objects, rows.shape[-1], 4)
        overlap = paired_iou(boxes, targets.boxes[:, :, None]).where(is_inside, 0)

        num_classes = predictions.classes.shape[-1]
        classes = predictions.classes.gather(1, flat[..., None].expand(-1, -1, num_classes))
        classes = classes.view(batch, num_objects, rows.shape[-1], num_classes)
        own = classes.gather(3, targets.labels[:, :, None, None].expand(-1, -1, rows.shape[-1], 1)).squeeze(3)
        score = own.sigmoid() * predictions.objectness.gather(1, flat).view_as(own).sigmoid()
        quality = score**self.score_power * overlap**self.iou_power
        quality = (quality + 1e-12).where(is_inside, -1.0)

        top_k = min(self.top_k, rows.shape[-1])
        best, place = quality.topk(top_k, dim=-1)
        wanted = overlap.topk(top_k, dim=-1).values.sum(dim=-1).round().clamp(min=1)
        is_taken = torch.arange(top_k, device=rows.device) < wanted[..., None]
        is_taken &= (best >= 0) & targets.valid[..., None]

        # a row that several objects want goes to the one it suits best
        chosen = rows.gather(2, place).flatten(1)
        bids = best.where(is_taken, -1.0).flatten(1)
        highest = bids.new_full(predictions.objectness.shape, -1.0).scatter_reduce(1, chosen, bids, "amax")
        valid = is_taken.flatten(1) & (bids == highest.gather(1, chosen))
        objects = torch.arange(num_objects, device=rows.device).repeat_interleave(top_k)
        claims = Claims(rows=chosen.where(valid, 0), objects=objects, valid=valid)
        return GuidedAssignment(positives=claims, shapes=claims)

    def _candidates(self, predictions: GuidedPredictions, targets: Targets) -> tuple[Tensor, Tensor]:
        """Rows (B, G, C) of all slots of the cells around each centre, and whether they may answer."""
        grid = predictions.grid
        centers, sizes_px = centers_and_sizes(targets.boxes)
        strides = grid.strides[grid.starts[:, 0]]
        cells = (centers[:, :, None] / strides[:, None]).floor().long()  # (B, G, L, 2)
        steps = torch.arange(-self.radius, self.radius + 1, device=cells.device)
        around = torch.cartesian_prod(steps, steps)
        cells = cells[:, :, :, None] + around  # (B, G, L, R, 2)
        sizes = grid.sizes[:, None]
        is_inside = ((cells >= 0) & (cells < sizes)).all(dim=-1)
        kept = torch.minimum(cells.clamp(min=0), sizes - 1)
        offset = kept[..., 1] * sizes[..., 0] + kept[..., 0]
        rows = grid.starts[:, None, :] + offset[..., None]  # (B, G, L, R, S)
        likeness = shape_iou(sizes_px[:, :, None, None], grid.shapes[grid.starts])  # (B, G, L, S)
        best = likeness.flatten(2).amax(dim=-1)[..., None, None]
        is_alike = (likeness >= self.shape_iou) | (likeness == best)
        is_inside = is_inside[..., None] & is_alike[:, :, :, None]
        return rows.flatten(2), is_inside.flatten(2)
