"""Suppression of a whole batch, per class: greedy, soft and by matrix; and box voting.

Each takes N boxes per image, best first, and gives a score below 0 to those that are dropped. Shapes never depend on
values, so that a graph can be exported.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from pyrafuse.core.tracing import is_traced, loop
from pyrafuse.ops.boxes import paired_iou, pairwise_intersection, pairwise_iou, take

BLOCK = 256
"""Boxes that a graph's suppression settles at once: bounds its memory to B x 256 x (256 + kept boxes) overlaps."""


def nms_of_batch(boxes: Tensor, labels: Tensor, is_valid: Tensor | None = None, *, iou: float, most: int = 0) -> Tensor:
    """(B, N) bool: no better box of the same label that is kept covers the box by more than ``iou``.

    torchvision's kernel decides, image by image; in a graph, `nms_in_graph`, which keeps the same boxes.

    Args:
        boxes: (B, N, 4) xyxy in pixels, best first.
        labels: (B, N) int64.
        is_valid: (B, N), valid ones first: what is not valid neither covers nor is kept. By default all are valid.
        iou: Largest overlap of two kept boxes of one label.
        most: Boxes that the caller takes per image; further ones may be left out. 0 finds all.
    """
    if is_traced():
        return nms_in_graph(boxes, labels, is_valid, iou=iou, most=most)
    ranks = torch.arange(boxes.shape[1], 0, -1, device=boxes.device)
    counts = [boxes.shape[1]] * len(boxes)
    if is_valid is not None and boxes.is_cpu:  # a GPU is not asked: it would be waited for
        counts = is_valid.sum(dim=1).tolist()
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for image, count in enumerate(counts):
        best = class_aware_nms(boxes[image, :count], ranks[:count], labels[image, :count], iou=iou)
        kept[image].index_fill_(0, best, True)
    return kept if is_valid is None else kept & is_valid


def nms_in_graph(boxes: Tensor, labels: Tensor, is_valid: Tensor | None = None, *, iou: float, most: int = 0) -> Tensor:
    """`nms_of_batch` as one loop of plain tensor operations, the only loop that a graph needs.

    Blocks of boxes are settled one after the other, best first. Within a block, which boxes are kept follows from which
    better ones are kept: rounds of this rule, until nothing changes. So many are needed as the longest chain of boxes
    that cover each other. The loop ends where no image has a valid box left, or each has ``most``.

    Args:
        boxes: (B, N, 4) xyxy in pixels, best first; N is fixed in a graph.
        labels: (B, N) int64.
        is_valid: (B, N), valid ones first. By default all are valid.
        iou: Largest overlap of two kept boxes of one label.
        most: Boxes that the caller takes per image; further ones may be left out. 0 finds all.
    """
    count = boxes.shape[1]
    if count == 0:
        return torch.zeros_like(labels, dtype=torch.bool)
    is_valid = torch.ones_like(labels, dtype=torch.bool) if is_valid is None else is_valid
    most, block = min(most or count, count), min(BLOCK, count)
    end = -(-count // block) * block
    # a box behind the last one stands for "none": without area, it covers nothing
    boxes = F.pad(boxes.double(), (0, 0, 0, end + 1 - count))  # double, as the kernel computes
    labels, left = F.pad(labels, (0, end + 1 - count)), F.pad(is_valid, (0, end + 1 - count))
    places, steps = torch.arange(end + 1, device=boxes.device), torch.arange(block, device=boxes.device)

    def goes_on(start: Tensor, kept: Tensor, *fixed: Tensor) -> Tensor:
        _, _, left, places, _ = fixed
        is_settled = kept & (places < start)
        needs_more = is_settled.sum(dim=1) < most
        return (needs_more & (left & (places >= start)).any(dim=1)).any()

    def one_round(start: Tensor, kept: Tensor, *fixed: Tensor) -> tuple[Tensor, Tensor]:
        boxes, labels, left, places, steps = fixed
        inside = steps + start
        block_boxes, block_labels = boxes.index_select(1, inside), labels.index_select(1, inside)
        guess = kept.index_select(1, inside)
        before = places.where(kept & (places < start), end).topk(most, dim=1, largest=False).values
        is_hit = _covers(take(boxes, before), labels.gather(1, before), block_boxes, block_labels, iou=iou).any(dim=1)
        covers = _covers(block_boxes, block_labels, block_boxes, block_labels, iou=iou)
        is_hit = is_hit | (covers & (steps[:, None] < steps) & guess[:, :, None]).any(dim=1)
        found = left.index_select(1, inside) & ~is_hit
        is_settled = (found == guess).all()
        return torch.where(is_settled, start + block, start), kept.index_copy(1, inside, found)

    start = torch.zeros((), dtype=torch.int64, device=boxes.device)
    fixed = (boxes, labels, left, places, steps)
    start, kept = loop(goes_on, one_round, (start, left.clone()), fixed)
    return (kept & (places < start))[:, :count]


def _covers(boxes: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *, iou: float) -> Tensor:
    """(B, N, M) bool: box and other are of one label and overlap by more than ``iou``."""
    area, other_area = (((b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])) for b in (boxes, others))
    shared = pairwise_intersection(boxes, others)
    overlap = shared / (area[..., :, None] + other_area[..., None, :] - shared)  # no area: NaN, which exceeds nothing
    return (overlap > iou) & (labels[..., :, None] == other_labels[..., None, :])


def class_aware_nms(boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float) -> Tensor:
    """Indices, best first, of the boxes (N, 4) that no better box of the same label (N,) covers by more than ``iou``.

    Boxes of different labels are moved apart instead of looped over: a shift by label.
    """
    if boxes.numel() == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    # double: a shift of 80 classes x 4000 px leaves float32 too few bits for the overlap of small boxes
    span = (boxes.max() - boxes.min() + 1).double()
    return nms(boxes.double() + (labels * span)[:, None], scores.double(), iou)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    num_labels: int,
    method: Literal["linear", "gaussian"] = "gaussian",
    iou: float = 0.3,
    sigma: float = 0.5,
    least_score: float = 0.001,
    most: int = 0,
) -> Tensor:
    """Lower the scores of covered boxes instead of dropping them (Bodla et al., arXiv:1704.04503).

    Each step takes the best box of every label in every image at once; of equal scores, the first box.

    Args:
        boxes: (B, N, 4) xyxy in pixels.
        scores: (B, N) scores.
        labels: (B, N) int64; boxes of different labels do not act on each other.
        num_labels: Number of labels.
        method: ``linear`` multiplies by 1 - IoU where the overlap exceeds ``iou``; ``gaussian`` always multiplies, by
            exp(-IoU^2 / ``sigma``).
        iou: Overlap above which the linear form acts; M2Det's published settings act like 0.3, whatever its files say.
        sigma: Width of the Gaussian form.
        least_score: Boxes below are dropped.
        most: Maximum number of boxes per label, the best first; 0 keeps all.

    Returns:
        The decayed scores (B, N); -1 for boxes that are dropped.

    Raises:
        ValueError: If ``method`` is another one.
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft suppression is linear or gaussian, not {method!r}")
    count = boxes.shape[1]
    index = torch.arange(count, device=boxes.device).expand_as(labels)
    steps = min(most, count) if most else count

    def lower(
        step: Tensor, current: Tensor, final: Tensor, is_left: Tensor, *fixed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        boxes, labels, index = fixed
        best = _first_best(current.where(is_left, -1), labels, index, num_labels)
        is_best = is_left & (index == best)
        final = current.where(is_best, final)
        overlap = paired_iou(boxes.gather(1, best[..., None].expand(-1, -1, 4)), boxes)
        if method == "linear":
            current = torch.where(overlap > iou, current * (1 - overlap), current)
        else:
            current = current * (-(overlap**2) / sigma).exp()
        return step + 1, current, final, is_left & ~is_best & (current >= least_score)

    def goes_on(step: Tensor, current: Tensor, final: Tensor, is_left: Tensor, *fixed: Tensor) -> Tensor:  # noqa: ARG001
        return (step < steps) & is_left.any()

    start = torch.zeros((), dtype=torch.int64, device=boxes.device)
    fixed = (boxes, labels, index)
    state = (start, scores.clone(), torch.full_like(scores, -1), scores >= least_score)
    if is_traced():
        return loop(goes_on, lower, state, fixed)[2]
    for _ in range(steps):
        if scores.is_cpu and not state[3].any():  # a GPU is not asked: it would be waited for
            break
        state = lower(*state, *fixed)
    return state[2]


def _first_best(scores: Tensor, labels: Tensor, index: Tensor, num_labels: int) -> Tensor:
    """(B, N): for each box, the index of the first box of its label that has the label's best score."""
    count = index.shape[1]
    peaks = scores.new_full((scores.shape[0], num_labels), -1).scatter_reduce(1, labels, scores, "amax")
    places = index.where(scores == peaks.gather(1, labels), count - 1)
    first = labels.new_full((labels.shape[0], num_labels), count - 1).scatter_reduce(1, labels, places, "amin")
    return first.gather(1, labels)


def matrix_nms(boxes: Tensor, scores: Tensor, labels: Tensor, *, sigma: float = 0.5) -> Tensor:
    """Lower the scores of covered boxes all at once (Wang et al., "SOLOv2", arXiv:2003.10152, section 3.3).

    A better box of the same label lowers a score the less, the more it is covered itself: the Gaussian form,
    exp(-IoU^2 / sigma). The paper compares masks; here boxes stand for them.

    Args:
        boxes: (B, N, 4) xyxy in pixels, best first.
        scores: (B, N), those below 0 last.
        labels: (B, N) int64.
        sigma: Width of the Gaussian.

    Returns:
        The decayed scores (B, N).
    """
    is_same = (labels[..., :, None] == labels[..., None, :]) & (scores >= 0)[..., :, None]
    overlap = (pairwise_iou(boxes, boxes) * is_same).triu(1)
    most_covered = overlap.amax(dim=1) if overlap.shape[1] else scores
    decay = ((most_covered[..., :, None] ** 2 - overlap**2) / sigma).exp().where(overlap > 0, 1)
    return scores * decay.amin(dim=1) if overlap.shape[1] else scores


def vote_boxes(boxes: Tensor, voters: Tensor, scores: Tensor, *, iou: float) -> Tensor:
    """Box voting: each box (..., K, 4) becomes the mean, weighed by score, of the voters that overlap it.

    Gidaris and Komodakis, arXiv:1505.01749, section 4. Neighbours that found the same object err apart, and their mean
    errs less.

    Args:
        boxes: (..., K, 4) xyxy in pixels, what suppression has kept.
        voters: (..., N, 4), all that it chose from; each box is among them.
        scores: (..., N) of the voters, above 0; one of 0 has no vote.
        iou: Least overlap of a voter with the box.
    """
    if not is_traced() and boxes.is_cpu and boxes.ndim == 3 and len(boxes) > 0:
        # image by image: the overlaps of a whole batch take memory that the system hands out slowly
        images = zip(boxes, voters, scores, strict=True)
        return torch.stack([vote_boxes(*image, iou=iou) for image in images])
    weights = scores[..., None, :] * (pairwise_iou(boxes, voters) >= iou)
    total = weights.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, weights @ voters / total, boxes)
