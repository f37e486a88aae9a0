"""Which of the assigned rows count: a number of positives and negatives, drawn image by image.

Ren et al., arXiv:1506.01497, section 3.1.3; the balanced draws of Pang et al., "Libra R-CNN", arXiv:1904.02701,
section 3.1.
assignment -> positives drawn -> negatives drawn to fill up -> the same assignment, the others ignored
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pyrafuse.core.assignment import IGNORED, Assignment
from pyrafuse.samplers.registry import DRAWS, SAMPLERS

Draw = Callable[[Assignment, Tensor, Tensor, torch.Generator | None], Tensor]
"""(assignment, candidates (B, A) bool, how many (B,) int64, generator) -> drawn (B, A) bool.

Where there are no more candidates than asked for, all are drawn."""


@SAMPLERS.register("keep_all")
def keep_all(assignment: Assignment, generator: torch.Generator | None = None) -> Assignment:  # noqa: ARG001
    """Let every row count that was assigned at all."""
    return assignment


@DRAWS.register("random")
def draw_at_random(
    assignment: Assignment,  # noqa: ARG001
    candidates: Tensor,
    number: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Each candidate is as likely as any other."""
    keys = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    return candidates & (ranks_of(keys.masked_fill(~candidates, 2)) < number[:, None])


@SAMPLERS.register("random", parts={"positives": DRAWS, "negatives": DRAWS})
class Sampler:
    """Draw positives, then fill up with negatives.

    Args:
        number: Maximum number of rows per image that count.
        positive_fraction: Largest share of positives.
        negatives_per_positive: Maximum number of negatives for each positive; None sets no bound.
        positives: How positives are drawn.
        negatives: How negatives are drawn.

    Raises:
        ValueError: If ``number`` is not positive or ``positive_fraction`` lies outside 0..1.
    """

    def __init__(
        self,
        *,
        number: int = 256,
        positive_fraction: float = 0.5,
        negatives_per_positive: float | None = None,
        positives: Draw = draw_at_random,
        negatives: Draw = draw_at_random,
    ) -> None:
        if number < 1 or not 0 <= positive_fraction <= 1:
            raise ValueError(f"number {number} must be positive and positive_fraction {positive_fraction} in 0..1")
        self.number = number
        self.positive_fraction = positive_fraction
        self.negatives_per_positive = negatives_per_positive
        self.positives = positives
        self.negatives = negatives

    @torch.no_grad()
    def __call__(self, assignment: Assignment, generator: torch.Generator | None = None) -> Assignment:
        """The assignment in which rows that were not drawn are ignored."""
        candidates = assignment.is_positive
        most = torch.full_like(assignment.objects[:, 0], int(self.number * self.positive_fraction))
        positives = self.positives(assignment, candidates, most, generator)
        num_positives = positives.sum(dim=1)
        wanted = self.number - num_positives
        if self.negatives_per_positive is not None:
            bound = (self.negatives_per_positive * num_positives.clamp(min=1)).floor().long()
            wanted = torch.minimum(wanted, bound)
        negatives = self.negatives(assignment, assignment.is_negative, wanted, generator)
        return replace(assignment, objects=assignment.objects.where(positives | negatives, IGNORED))


@DRAWS.register("iou_balanced")
class IoUBalancedNegatives:
    """Draw as many negatives from each of several equal bins of overlap, so that hard ones count.

    The bins divide what lies between the floor and the greatest overlap of any row, positives included. A bin that
    holds too few is filled up with others at random.

    Args:
        num_bins: Bins; one draws at random above the floor.
        floor: Rows that overlap no object by more (0), or by as much (above 0), are no hard ones. Below 0 there is no
            floor: rows that overlap nothing lie in the lowest bin. mmdetection's published setting of -1 means that in
            its first draw and 0 in all later ones.
        floor_fraction: Share of the draw that comes from below the floor, where there are enough.
    """

    def __init__(self, *, num_bins: int = 3, floor: float = 0.0, floor_fraction: float = 0.0) -> None:
        if num_bins < 1 or not 0 <= floor_fraction <= 1:
            raise ValueError(f"num_bins {num_bins} must be positive and floor_fraction {floor_fraction} in 0..1")
        self.num_bins = num_bins
        self.floor = floor
        self.floor_fraction = floor_fraction

    def __call__(
        self, assignment: Assignment, candidates: Tensor, number: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        def draw(pool: Tensor, count: Tensor) -> Tensor:
            return draw_at_random(assignment, pool, count, generator)

        overlaps = assignment.overlaps
        is_hard = overlaps >= self.floor if self.floor > 0 or self.floor < 0 else overlaps > 0
        is_hard = is_hard & candidates
        wanted = (number.double() * (1 - self.floor_fraction)).floor().long()
        if self.num_bins == 1:
            drawn = draw(is_hard, wanted)
        else:
            drawn = self._from_bins(overlaps, is_hard, wanted, draw)
            drawn = torch.where((is_hard.sum(dim=1) <= wanted)[:, None], is_hard, drawn)
        drawn = drawn | draw(candidates & ~is_hard, number - drawn.sum(dim=1))
        return drawn | draw(candidates & ~drawn, number - drawn.sum(dim=1))

    def _from_bins(
        self, overlaps: Tensor, pool: Tensor, number: Tensor, draw: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        floor = max(self.floor, 0.0)
        step = (overlaps.amax(dim=1, keepdim=True) - floor) / self.num_bins
        drawn = torch.zeros_like(pool)
        for i in range(self.num_bins):
            is_inside = (overlaps >= floor + i * step) & (overlaps < floor + (i + 1) * step)
            drawn = drawn | draw(pool & is_inside, number // self.num_bins)
        return drawn | draw(pool & ~drawn, number - drawn.sum(dim=1))


@DRAWS.register("instance_balanced")
class InstanceBalancedPositives:
    """Draw as many positives for each object, so that large ones do not crowd out small ones.

    What is missing then is drawn from the rest; mmdetection draws it from all again, and may count a row twice.
    """

    def __call__(
        self, assignment: Assignment, candidates: Tensor, number: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        ranks, num_objects = _ranks_in_group(assignment.objects, candidates, generator)
        share = (number / num_objects.clamp(min=1)).round() + 1
        drawn = candidates & (ranks < share[:, None])
        missing = (number - drawn.sum(dim=1)).clamp(min=0)
        drawn = drawn | draw_at_random(assignment, candidates & ~drawn, missing, generator)
        drawn = draw_at_random(assignment, drawn, number, generator)
        return torch.where((candidates.sum(dim=1) <= number)[:, None], candidates, drawn)


def ranks_of(keys: Tensor) -> Tensor:
    """Place (B, A) of each key in the order of its row."""
    order = keys.argsort(dim=1)
    places = torch.arange(keys.shape[1], device=keys.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _ranks_in_group(groups: Tensor, members: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Random place (B, A) of each member among those with the same group number, and the number (B,) of groups."""
    shuffled = torch.rand(groups.shape, generator=generator, device=groups.device).argsort(dim=1)
    numbers = groups.where(members, -1)
    order = shuffled.gather(1, numbers.gather(1, shuffled).argsort(dim=1, stable=True))
    sorted_groups = numbers.gather(1, order)
    places = torch.arange(groups.shape[1], device=groups.device).expand_as(order)
    is_first = torch.ones_like(members)
    is_first[:, 1:] = sorted_groups[:, 1:] != sorted_groups[:, :-1]
    start = places.where(is_first, 0).cummax(dim=1).values
    ranks = torch.empty_like(order).scatter_(1, order, places - start)
    return ranks, (is_first & (sorted_groups >= 0)).sum(dim=1)
