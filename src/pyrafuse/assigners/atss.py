"""Adaptive training sample selection: each object finds its own threshold among the rows around its centre.

Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection",
arXiv:1912.02424, algorithm 1; with the costs of Chen et al., "Disentangle Your Dense Object Detector",
arXiv:2107.02963, section 4.1.
nearest rows of each level -> overlap of these -> mean + deviation is the threshold -> the best object of each row
"""

import math

import torch
from torch import Tensor

from pyrafuse.assigners.max_iou import chunks
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.boxes import centers_and_sizes, paired_iou, points_in_boxes
from pyrafuse.ops.coders import BoxCoder, DeltaCoder


@ASSIGNERS.register("atss")
class ATSSAssigner:
    """Assign the ``top_k`` nearest rows of each level whose overlap is high for the object.

    Args:
        top_k: Rows of each level that an object looks at.
        alpha: None overlaps the anchors with the objects. A number makes it the predicted boxes' overlap to the power
            of ``alpha`` times the predicted score of the object's class to the power of 1 - ``alpha`` (DDOD: 0.8 to
            learn classes, 0.5 to learn boxes).
        coder: How the predicted boxes are decoded.

    Raises:
        ValueError: If ``top_k`` is not positive or ``alpha`` lies outside 0..1.
    """

    def __init__(self, *, top_k: int = 9, alpha: float | None = None, coder: BoxCoder | None = None) -> None:
        if top_k < 1 or (alpha is not None and not 0 <= alpha <= 1):
            raise ValueError(f"top_k must be positive and alpha in 0..1, got {top_k} and {alpha}")
        self.top_k = top_k
        self.alpha = alpha
        self.coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)) if coder is None else coder

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        """Assign; everything past the distances is (B, G, candidates)."""
        batch, num_objects = targets.labels.shape
        anchors = predictions.anchors.expand(batch, -1, -1)
        in_padding = None if targets.padded_sizes is None else predictions.grid.beyond(targets.padded_sizes)
        rows, is_candidate = self._nearest(anchors, predictions.grid.counts, targets.boxes, in_padding)  # (B, G, C)
        flat = rows.flatten(1)
        at_rows = _gather(anchors, flat).unflatten(1, rows.shape[1:])
        centers, _ = centers_and_sizes(at_rows)
        boxes = targets.boxes[:, :, None]
        if self.alpha is None:
            overlap = paired_iou(at_rows, boxes)
        else:
            found = self.coder.decode(at_rows, _gather(predictions.deltas, flat).unflatten(1, rows.shape[1:]))
            num_classes = predictions.classes.shape[-1]
            own = rows * num_classes + targets.labels[..., None]
            score = predictions.classes.flatten(1).gather(1, own.flatten(1)).view_as(own).sigmoid()
            overlap = score ** (1 - self.alpha) * paired_iou(found, boxes) ** self.alpha
        is_positive = (overlap >= _mean_and_deviation(overlap, is_candidate)) & targets.valid[..., None]
        is_positive &= points_in_boxes(centers, boxes.expand_as(at_rows)) > 0.01
        if is_candidate is not None:
            is_positive &= is_candidate

        # a row that several objects want goes to the one it overlaps most, the first of equals
        bids = overlap.where(is_positive, -1.0).flatten(1)
        highest = torch.full(anchors.shape[:2], -1.0, device=bids.device, dtype=bids.dtype)
        highest = highest.scatter_reduce(1, flat, bids, "amax")
        wins = is_positive.flatten(1) & (bids == highest.gather(1, flat))
        numbers = torch.arange(num_objects, device=flat.device).repeat_interleave(rows.shape[2])
        objects = torch.full(anchors.shape[:2], num_objects, device=flat.device)
        objects = objects.scatter_reduce(1, flat, numbers.expand_as(flat).where(wins, num_objects), "amin")
        objects, overlaps = objects.where(objects < num_objects, BACKGROUND), highest.clamp(min=0)
        if in_padding is not None:
            objects, overlaps = objects.masked_fill(in_padding, IGNORED), overlaps.masked_fill(in_padding, -1)
        return Assignment(objects=objects, overlaps=overlaps)

    def _nearest(
        self, anchors: Tensor, counts: tuple[int, ...], boxes: Tensor, in_padding: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, G, C) the rows of each level whose centres are nearest to each box's, and which are not in padding."""
        centers, _ = centers_and_sizes(anchors)
        if in_padding is not None:
            centers = centers.masked_fill(in_padding[..., None], math.inf)
        wanted, _ = centers_and_sizes(boxes)
        found, start = [], 0
        for count, of_level in zip(counts, centers.split(counts, dim=1), strict=True):
            top_k = min(self.top_k, count)
            parts = []
            for columns in chunks(2 * of_level.numel(), boxes.shape[1]):
                away = (of_level[:, None] - wanted[:, columns, None]).square_().sum(dim=-1).sqrt_()
                parts.append(away.topk(top_k, dim=2, largest=False).indices)
            none = torch.zeros(len(boxes), 0, top_k, dtype=torch.int64, device=boxes.device)
            found.append(torch.cat((none, *parts), dim=1) + start)
            start += count
        rows = torch.cat(found, dim=2)
        if in_padding is None:
            return rows, None
        return rows, ~in_padding.gather(1, rows.flatten(1)).view_as(rows)


def _mean_and_deviation(values: Tensor, counts: Tensor | None) -> Tensor:
    """The sum of mean and deviation over the last side (..., C) -> (..., 1), of those that count."""
    if counts is None:
        if values.shape[2] < 2 or not values.numel():  # torch warns of one value alone, and of none
            return values.mean(dim=2, keepdim=True)
        return values.mean(dim=2, keepdim=True) + values.std(dim=2, keepdim=True)
    number = counts.sum(dim=2, keepdim=True)
    mean = values.where(counts, 0).sum(dim=2, keepdim=True) / number.clamp(min=1)
    squares = (values - mean).where(counts, 0).square().sum(dim=2, keepdim=True)
    return mean + (squares / (number - 1).clamp(min=1)).sqrt()


def _gather(values: Tensor, rows: Tensor) -> Tensor:
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))
