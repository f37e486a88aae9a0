"""Rows are matched to the object they overlap most, above a threshold; and every object has its best row.

Faster R-CNN, arXiv:1506.01497, section 3.1.2; RetinaNet, arXiv:1708.02002, section 4.
overlaps, objects chunk by chunk -> best object of each row, best rows of each object -> thresholds
"""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.parts import part
from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.anchors import anchor_shapes, octave_scales
from pyrafuse.ops.boxes import box_area, centers_and_sizes, pairwise_intersection

MAX_ELEMENTS = 2**24
"""Overlaps held at a time: 64 MiB, and a few times as much while they are computed."""
MAX_CACHED_ELEMENTS = 2**17
"""The same bound on a processor, whose cache holds them: 0.5 MiB."""

Overlap = Callable[[Tensor], Tensor]
"""Boxes (B, G, 4) of objects -> overlaps (B, G, A) with the rows, which the caller may change."""


def chunks(num_rows: int, num_objects: int, *, is_cached: bool = False) -> Iterator[slice]:
    """Objects, so many at a time that ``num_rows`` times as many overlaps fit, into a processor's cache if asked to."""
    step = max(1, (MAX_CACHED_ELEMENTS if is_cached else MAX_ELEMENTS) // max(1, num_rows))
    return (slice(start, start + step) for start in range(0, num_objects, step))


def overlap_with(anchors: Tensor) -> Overlap:
    """`pairwise_iou` with ``anchors`` (A, 4) or (B, A, 4)."""
    columns = lay_out(anchors)
    areas = box_area(anchors)[..., None, :] + 1e-16  # 0/0 is 0

    def overlap(boxes: Tensor) -> Tensor:
        intersection = pairwise_intersection(boxes, columns)
        union = (box_area(boxes)[..., None] + areas).sub_(intersection)
        return intersection.div_(union)

    return overlap


@ASSIGNERS.register("max_iou")
class MaxIoUAssigner:
    """Assign by the IoU of anchors and objects.

    Args:
        positive_iou: Least overlap at which a row is matched to its object.
        negative_iou: Rows that overlap all objects by less are background; what lies between is ignored. A pair
            also ignores the rows that overlap by less than its first.
        least_best_iou: Least overlap at which the best rows of an object are matched to it, whatever ``positive_iou``
            says. Of several objects that a row is best for, the last has it.
        match_best: Whether these rows are matched.
        match_ties: Whether all of several equal rows are matched; else the first.
        crowd_share: Ignore rows that a crowd covers by more than this share of the row; None looks at no crowds.
        share_of_crowd: Whether that share is one of the crowd instead.
        border: Ignore anchors that reach out of the image by more than so many pixels; None looks at all whose cell
            lies in the image or in its own padding.

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
        return self.assign(anchors, targets, outside=self._outside(anchors, predictions.grid, targets))

    @torch.no_grad()
    def assign(self, anchors: Tensor, targets: Targets, *, outside: Tensor | None = None) -> Assignment:
        """Assign ``anchors`` (A, 4) or (B, A, 4), xyxy in pixels; those ``outside`` (B or 1, A) bool are ignored."""
        excused = self._excused(anchors, targets)
        if outside is not None:
            outside = outside.expand(len(targets.labels), -1)
            excused = outside if excused is None else excused | outside
        return self.by_overlap(overlap_with(anchors), anchors.shape[-2], targets, excused)

    @torch.no_grad()
    def by_overlap(
        self, overlap: Overlap, num_rows: int, targets: Targets, excused: Tensor | None = None
    ) -> Assignment:
        """Assign ``num_rows`` rows by their ``overlap`` with boxes; ``excused`` (B, A) bool are ignored."""
        batch, num_objects = targets.labels.shape
        device = targets.boxes.device
        boxes = targets.boxes.where(targets.valid[..., None], 0)  # overlaps nothing
        # floats hold numbers of objects, from 1, 0 for none: a processor compares and multiplies them many at a time,
        # but takes integers and what is true one by one
        numbers = torch.arange(1.0, num_objects + 1, device=device)
        best, owners, matched = torch.zeros(3, batch, num_rows, device=device)
        rows, counts = [], []
        for columns in chunks(best.numel(), num_objects, is_cached=best.is_cpu):
            values = overlap(boxes[:, columns])
            if excused is not None:
                values.masked_fill_(excused[:, None], 0)
            highest, first = _best_of_rows(values, numbers[columns, None])
            owners = torch.maximum(owners, _as_float(torch.gt, highest, best).mul_(first))  # the later, the better
            best = torch.maximum(best, highest)
            if not self.match_best:
                continue
            of_object = values.amax(dim=2, keepdim=True)
            # an object that nothing overlaps would take every row that overlaps nothing
            taking = numbers[columns, None] * ((of_object >= self.least_best_iou) & (of_object > 0))
            if self.match_ties:
                is_best = _as_float(torch.eq, values, of_object)
                matched = torch.maximum(matched, highest_of_rows(is_best.mul_(taking)))
            else:
                rows.append(values.argmax(dim=2))
                counts.append(taking[..., 0])

        if rows:
            matched = matched.scatter_reduce(1, torch.cat(rows, dim=1), torch.cat(counts, dim=1), "amax")
        low, high = self.negative_iou
        objects = torch.full_like(best, IGNORED, dtype=torch.int64)
        objects = objects.masked_fill((best >= low) & (best < high), BACKGROUND)
        objects = (owners.long() - 1).where(best >= self.positive_iou, objects)
        if excused is not None:
            objects, best = objects.masked_fill(excused, IGNORED), best.masked_fill(excused, -1)
        return Assignment(objects=(matched.long() - 1).where(matched > 0, objects), overlaps=best)

    def _outside(self, anchors: Tensor, grid: DenseGrid, targets: Targets) -> Tensor | None:
        in_padding = None if targets.padded_sizes is None else grid.beyond(targets.padded_sizes)
        if self.border is None:
            return in_padding
        if targets.sizes is None:
            height, width = (grid.strides[0] * cells for cells in grid.sizes[0])
        else:
            height, width = targets.sizes[..., None].unbind(1)  # (B, 1) each
        x1, y1, x2, y2 = anchors.view(-1, *anchors.shape[-2:]).unbind(-1)
        is_inside = (torch.minimum(x1, y1) >= -self.border) & (x2 < width + self.border) & (y2 < height + self.border)
        return ~is_inside if in_padding is None else ~is_inside | in_padding

    def _excused(self, anchors: Tensor, targets: Targets) -> Tensor | None:
        if self.crowd_share is None:
            return None
        batch, num_objects = targets.labels.shape
        crowds = targets.boxes.where(targets.crowd[..., None], 0)  # covers nothing
        columns, areas = lay_out(anchors), box_area(anchors)[..., None, :]
        covered = torch.zeros(batch, anchors.shape[-2], device=anchors.device)
        for some in chunks(covered.numel(), num_objects, is_cached=covered.is_cpu):
            whole = box_area(crowds[:, some])[..., None] if self.share_of_crowd else areas
            share = pairwise_intersection(crowds[:, some], columns).div_(whole.clamp(min=1e-6))
            covered = torch.maximum(covered, highest_of_rows(share))
        return covered > self.crowd_share


def lay_out(anchors: Tensor) -> Tensor:
    """The same (..., A, 4), one side of all anchors next to each other in memory."""
    return anchors.mT.contiguous().mT


def _best_of_rows(values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Of overlaps (B, G, A), each row's highest and the lowest of ``numbers`` (G, 1) that has it."""
    highest = highest_of_rows(values)
    if len(numbers) == 1:
        return highest, numbers[0]
    end = numbers[-1] + 1
    return highest, end - highest_of_rows(_as_float(torch.eq, values, highest[:, None]).mul_(end - numbers))


def highest_of_rows(values: Tensor) -> Tensor:
    """Values (B, G, A) -> (B, A); of one object it is its own, for the search would take longer than all the rest."""
    return values[:, 0] if values.shape[1] == 1 else values.amax(dim=1)


def _as_float(compare: Callable[..., Tensor], values: Tensor, others: Tensor) -> Tensor:
    """1 where the comparison holds, else 0, in the type of ``values``."""
    return compare(values, others, out=torch.empty_like(values))


@ASSIGNERS.register(
    "approx_max_iou",
    parts={"assigner": ASSIGNERS},
    defaults={"assigner": part("max_iou", least_best_iou=0.4)},
)
class ApproxMaxIoUAssigner:
    """Assign squares, whose shapes are still to be guided, by the best of several anchors around their centres.

    Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, section 3.3.

    Args:
        assigner: Its thresholds are used; it looks at no crowds here.
        scales: Scales of the anchors, in sides of the square.
        ratios: Aspect ratios of the anchors, height to width.
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
        grid = predictions.grid
        in_padding = None if targets.padded_sizes is None else grid.beyond(targets.padded_sizes)
        return self.assign(grid.anchors, targets, outside=in_padding)

    def assign(self, squares: Tensor, targets: Targets, *, outside: Tensor | None = None) -> Assignment:
        """Assign ``squares`` (A, 4), xyxy in pixels; those ``outside`` (B, A) bool are ignored."""
        centers, sizes = centers_and_sizes(squares)
        halves = sizes[:, None] * self.shapes.to(squares.device, non_blocking=True) / 2
        around = torch.cat((centers[:, None] - halves, centers[:, None] + halves), dim=-1)  # (A, S, 4)

        overlaps = [overlap_with(boxes) for boxes in around.unbind(1)]

        def overlap(boxes: Tensor) -> Tensor:
            return reduce(torch.maximum, (of_shape(boxes) for of_shape in overlaps))

        return self.assigner.by_overlap(overlap, len(squares), targets, outside)
