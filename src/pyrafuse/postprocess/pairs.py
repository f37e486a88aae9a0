"""The best pairs of row and class of each image, in a fixed number: scores (B, A, C) -> `Pairs` (B, N)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrafuse.core.predictions import Candidates
from pyrafuse.core.tracing import is_traced
from pyrafuse.ops.boxes import take


@dataclass(frozen=True)
class Pairs:
    """N pairs of row and class of each image.

    Attributes:
        scores: (B, N), below 0 where there is no pair.
        rows: (B, N) int64, 0..A-1.
        classes: (B, N) int64, 0..C-1.
    """

    scores: Tensor
    rows: Tensor
    classes: Tensor

    def take(self, order: Tensor) -> "Pairs":
        """The pairs at ``order`` (B, M)."""
        return Pairs(*(values.gather(1, order) for values in (self.scores, self.rows, self.classes)))

    def best(self, limit: int) -> "Pairs":
        """The best ``limit`` pairs, or all."""
        scores, places = best_of(self.scores, limit)
        return Pairs(scores, self.rows.gather(1, places), self.classes.gather(1, places))

    def name(self, labels: Tensor | None) -> "Pairs":
        """The same with the class of each row from ``labels`` (B, A), where these are given."""
        return self if labels is None else Pairs(self.scores, self.rows, labels.gather(1, self.rows))

    def weigh(self, factors: Tensor) -> "Pairs":
        """The same with scores times ``factors`` (B, N)."""
        return Pairs((self.scores * factors).where(self.scores >= 0, -1), self.rows, self.classes)

    def only(self, passes: Tensor) -> "Pairs":
        """The same without those that do not pass (B, N)."""
        return Pairs(self.scores.where(passes, -1), self.rows, self.classes)


def passing_rows(scores: Tensor, least: float | Tensor) -> Tensor | None:
    """The rows (B, N), in order, that hold all scores (B, A, C) above ``least``; None where they are not far fewer.

    Only a CPU tells: a GPU would have to be waited for.
    """
    if not scores.is_cpu or is_traced() or not scores.numel():
        return None
    passes = (scores.amax(dim=2, keepdim=True) > least)[..., 0]
    count = int(passes.sum(dim=1).max())
    if count > scores.shape[1] // 4:
        return None
    return passes.float().topk(count, dim=1).indices.sort(dim=1).values


def only_rows(candidates: Candidates, rows: Tensor) -> Candidates:
    """The candidates of ``rows`` (B, N), which may leave out any of a level."""
    boxes, quality, levels = candidates.boxes, candidates.quality, candidates.levels
    return Candidates(
        boxes=take(boxes.flatten(2), rows).unflatten(2, boxes.shape[2:]),
        scores=take(candidates.scores, rows),
        levels=levels[rows] if levels.ndim == 1 else levels.gather(1, rows),
        quality=None if quality is None else quality.gather(1, rows),
    )


def best_pairs(scores: Tensor, limit: int = 0) -> Pairs:
    """The best ``limit`` pairs, or all; scores (B, A, C) below 0 are none.

    The rows whose best class is among the ``limit`` best ones hold all of these pairs, and are far fewer to sort.
    """
    count, num_classes = scores.shape[1:]
    of_rows, rows = best_of(scores.amax(dim=2), limit)
    is_part = is_traced() or rows.shape[1] < count
    if is_part:
        scores = scores.gather(1, rows[..., None].expand(-1, -1, num_classes)).where(of_rows[..., None] >= 0, -1)
    if num_classes == 1:
        return Pairs(of_rows, rows, torch.zeros_like(rows))
    best, places = best_of(scores.flatten(1), limit)
    rows = rows.gather(1, places // num_classes) if is_part else places // num_classes
    return Pairs(best, rows, places % num_classes)


def best_of(scores: Tensor, limit: int = 0) -> tuple[Tensor, Tensor]:
    """The best ``limit`` of scores (B, N), or all, and their places; which of equal ones at the limit is left open.

    On a CPU they are as few as hold what is above 0 in each image; a GPU would have to be waited for to know.
    """
    is_few = isinstance(scores.shape[1], int) and scores.shape[1] <= limit
    if is_traced() and limit and not is_few:  # filled up, so that the number is fixed whatever the size of the images
        best, places = F.pad(scores, (0, limit), value=-1).topk(limit, dim=1)
        return best, places.clamp(max=scores.shape[1] - 1)
    size = min(limit, scores.shape[1]) if limit else scores.shape[1]
    if scores.is_cpu and not is_traced() and scores.numel():
        size = min(size, int((scores >= 0).sum(dim=1).max()))
    if size == scores.shape[1]:
        return scores, torch.arange(size, device=scores.device).expand_as(scores)
    return scores.topk(size, dim=1)


def rank(pairs: Pairs, num_classes: int) -> Pairs:
    """Best first; of equal scores the lower row, then the lower class."""
    order = (pairs.rows * num_classes + pairs.classes).argsort(dim=1)
    return pairs.take(order.gather(1, pairs.scores.gather(1, order).argsort(dim=1, descending=True, stable=True)))


def best_of_levels(scores: Tensor, counts: tuple[int, ...], limit: int) -> Pairs:
    """The best ``limit`` pairs of each level, which has ``counts`` rows of the scores (B, A, C)."""
    levels, start = [], 0
    for of_level in scores.split(counts, dim=1):
        pairs = best_pairs(of_level, limit)
        levels.append(Pairs(pairs.scores, pairs.rows + start, pairs.classes))
        start += of_level.shape[1]
    return Pairs(
        torch.cat([level.scores for level in levels], dim=1),
        torch.cat([level.rows for level in levels], dim=1),
        torch.cat([level.classes for level in levels], dim=1),
    )


def limit_levels(pairs: Pairs, levels: Tensor, limit: int) -> Pairs:
    """Ranked ``pairs`` without those that ``limit`` better ones of their level precede; levels (B, N) in any order."""
    levels = levels.where(pairs.scores >= 0, -1)
    order = levels.argsort(dim=1, stable=True)
    ordered = levels.gather(1, order)
    places = torch.arange(levels.shape[1], device=levels.device) - torch.searchsorted(ordered, ordered)
    return pairs.only(torch.zeros_like(places).scatter(1, order, places) < limit)
