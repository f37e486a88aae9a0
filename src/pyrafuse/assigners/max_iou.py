"""Rows answer for the object they overlap most, above a threshold; and every object has its best row.

Faster R-CNN, arXiv:1506.01497, section 3.1.2; RetinaNet, arXiv:1708.02002, section 4.
overlaps, objects chunk by chunk -> best object of each row -> thresholds -> best rows of each object
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.anchors import anchor_shapes, octave_scales
from pyrafuse.ops.boxes import box_area, centers_and_sizes, pairwise_intersection, pairwise_iou

MAX_ELEMENTS = 2**24
"""Overlaps held at a time: 64 MiB, and a few times as much while they are computed."""

Overlap = Callable[[Tensor], Tensor]
"""Boxes (B, G, 4) of objects -> overlaps (B, A, G) with the rows."""


def chunks(num_rows: int, num_objects: int) -> Iterator[slice]:
    """Columns of objects, so many at a time that ``num_rows`` times as many overlaps fit."""
    step = max(1, MAX_ELEMENTS // max(1, num_rows))
    return (slice(start, start + step) for start in range(0, num_objects, step))


class MaxIoUAssigner:
    """Assign by the IoU of anchors and objects.

    Args:
        positive_iou: Least overlap at which a row answers for its object.
        negative_iou: Rows that overlap all objects by less shall find nothing; what lies between is ignored. A pair
            also ignores the rows that overlap by less than its first.
        least_best_iou: The rows that overlap an object most answer for it, if by this much or more, whatever
            ``positive_iou`` says. Of several objects that a row is best for, the last has it.
        match_best: Let them.
        match_ties: All of them, where several overlap it equally; else the first.
        crowd_share: Ignore rows that a crowd covers by more than this share of the row; None looks at no crowds.
        share_of_crowd: That share is one of the crowd instead.
        border: Ignore anchors that reach out of the image by more than so many pixels; None looks at all.

    Raises:
        ValueError: If a negative threshold lies above the positive one.
    """

    def __init__(
        self,
        *,
        positive_iou: float = 0.5,
        negative_iou: float | tuple[float, float] = 0.4,
        least_best_iou: float = 0.0,
        match_best: bool = True,
        match_ties: bool = True,
        crowd_share: float | None = None,
        share_of_crowd: bool = False,
        border: float | None = None,
    ) -> None:
        self.positive_iou = positive_iou
        self.negative_iou = (0.0, negative_iou) if isinstance(negative_iou, float | int) else tuple(negative_iou)
        if not self.negative_iou[0] <= self.negative_iou[1] <= positive_iou:
            raise ValueError(f"negative_iou {negative_iou} must not lie above positive_iou {positive_iou}")
        self.least_best_iou = least_best_iou
        self.match_best = match_best
        self.match_ties = match_ties
        self.crowd_share = crowd_share
        self.share_of_crowd = share_of_crowd
        self.border = border

    def __call__(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Assign the anchors, guided ones where there are any."""
        anchors = predictions.anchors
        return self.assign(anchors, targets, outside=self._outside(anchors, predictions.grid))

    @torch.no_grad()
    def assign(self, anchors: Tensor, targets: Targets, *, outside: Tensor | None = None) -> Assignment:
        """Assign ``anchors`` (A, 4) or (B, A, 4), xyxy in pixels; those ``outside`` (B or 1, A) bool are ignored."""
        excused = self._excused(anchors, targets)
        if outside is not None:
            outside = outside.expand(len(targets.labels), -1)
            excused = outside if excused is None else excused | outside
        return self.by_overlap(lambda boxes: pairwise_iou(anchors, boxes), anchors.shape[-2], targets, excused)

    @torch.no_grad()
    def by_overlap(
        self, overlap: Overlap, num_rows: int, targets: Targets, excused: Tensor | None = None
    ) -> Assignment:
        """Assign ``num_rows`` rows by their ``overlap`` with boxes; ``excused`` (B, A) bool are ignored."""
        batch, num_objects = targets.labels.shape
        device = targets.boxes.device
        best = torch.zeros(batch, num_rows, device=device)
        owners = torch.zeros(batch, num_rows, dtype=torch.int64, device=device)
        of_objects, first_rows = [], []

        def overlaps_of(columns: slice) -> Tensor:
            values = overlap(targets.boxes[:, columns])
            hidden = ~targets.valid[:, None, columns]
            if excused is not None:
                hidden = hidden | excused[..., None]
            return values.masked_fill_(hidden, -1)

        parts = list(chunks(batch * num_rows, num_objects))
        for columns in parts:
            values = overlaps_of(columns)
            highest, place = values.max(dim=2)
            is_better = highest > best
            best = highest.where(is_better, best)
            owners = (place + columns.start).where(is_better, owners)
            of_object, row = values.max(dim=1)
            of_objects.append(of_object)
            first_rows.append(row)

        objects = torch.full_like(owners, IGNORED)
        low, high = self.negative_iou
        objects = objects.masked_fill((best >= low) & (best < high), BACKGROUND)
        objects = owners.where(best >= self.positive_iou, objects)
        if excused is not None:
            objects, best = objects.masked_fill(excused, IGNORED), best.masked_fill(excused, -1)
        if self.match_best and parts:
            of_object = torch.cat(of_objects, dim=1)
            # an object that nothing overlaps would take every row that overlaps nothing
            counts = (of_object >= self.least_best_iou) & (of_object > 0)
            if self.match_ties:
                for columns in parts:
                    is_best = (overlaps_of(columns) == of_object[:, None, columns]) & counts[:, None, columns]
                    numbers = torch.arange(is_best.shape[2], device=device) + columns.start
                    last = numbers.where(is_best, -1).amax(dim=2)
                    objects = last.where(last >= 0, objects)
            else:
                rows = torch.cat(first_rows, dim=1)
                numbers = torch.arange(num_objects, device=device).expand_as(rows).where(counts, -1)
                last = torch.full_like(objects, -1).scatter_reduce(1, rows, numbers, "amax")
                objects = last.where(last >= 0, objects)
        return Assignment(objects=objects, overlaps=best)

    def _outside(self, anchors: Tensor, grid: DenseGrid) -> Tensor | None:
        if self.border is None:
            return None
        height, width = (grid.strides[0] * cells for cells in grid.sizes[0])
        x1, y1, x2, y2 = anchors.view(-1, *anchors.shape[-2:]).unbind(-1)
        is_inside = (torch.minimum(x1, y1) >= -self.border) & (x2 < width + self.border) & (y2 < height + self.border)
        return ~is_inside

    def _excused(self, anchors: Tensor, targets: Targets) -> Tensor | None:
        batch, num_objects = targets.labels.shape
        if self.crowd_share is None:
            return None
        excused = torch.zeros(batch, anchors.shape[-2], dtype=torch.bool, device=anchors.device)
        for columns in chunks(excused.numel(), num_objects):
            crowds = targets.boxes[:, columns]
            whole = box_area(crowds)[:, None] if self.share_of_crowd else box_area(anchors)[..., None]
            share = pairwise_intersection(anchors, crowds).div_(whole.clamp(min=1e-6))
            excused |= ((share > self.crowd_share) & targets.crowd[:, None, columns]).any(dim=2)
        return excused


class ApproxMaxIoUAssigner:
    """Assign squares, whose shapes are still to be guided, by the best of several anchors around their centres.

    Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, section 3.3.

    Args:
        assigner: Its thresholds are used; it looks at no crowds here.
        scales: Of the anchors, in sides of the square.
        ratios: Of the anchors, height to width.
    """

    def __init__(
        self,
        assigner: MaxIoUAssigner | None = None,
        *,
        scales: Sequence[float] = octave_scales(1, 3),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        self.assigner = MaxIoUAssigner(least_best_iou=0.4) if assigner is None else assigner
        self.shapes = anchor_shapes(1, scales=scales, ratios=ratios)

    def __call__(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Assign the grid's own squares."""
        return self.assign(predictions.grid.anchors, targets)

    def assign(self, squares: Tensor, targets: Targets) -> Assignment:
        """Assign ``squares`` (A, 4), xyxy in pixels."""
        centers, sizes = centers_and_sizes(squares)
        halves = sizes[:, None] * self.shapes.to(squares.device, non_blocking=True) / 2
        around = torch.cat((centers[:, None] - halves, centers[:, None] + halves), dim=-1)  # (A, S, 4)

        def overlap(boxes: Tensor) -> Tensor:
            best = pairwise_iou(around[:, 0], boxes)
            for shape in range(1, around.shape[1]):
                best = torch.maximum(best, pairwise_iou(around[:, shape], boxes))
            return best

        return self.assigner.by_overlap(overlap, len(squares), targets)
