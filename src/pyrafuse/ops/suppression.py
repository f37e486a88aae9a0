"""Non-maximum suppression per class, over one call however many classes there are, and its soft form."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from pyrafuse.ops.boxes import paired_iou, pairwise_iou


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
    *,
    method: Literal["linear", "gaussian"] = "gaussian",
    iou: float = 0.3,
    sigma: float = 0.5,
    least_score: float = 0.001,
    pixel_offset: float | tuple[float, float] = 0.0,
    most: int = 0,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of covered boxes instead of dropping them (Bodla et al., arXiv:1704.04503).

    One class at a time. Each step costs one pass over the boxes that are left, so call it on candidates.

    Args:
        boxes: (N, 4) xyxy in pixels.
        scores: (N,).
        method: ``linear`` multiplies by 1 - IoU where the overlap exceeds ``iou``; ``gaussian`` always multiplies, by
            exp(-IoU^2 / ``sigma``).
        iou: Of the linear form alone; M2Det's published settings act like 0.3, whatever its files say.
        sigma: Of the Gaussian form alone.
        least_score: Boxes below are dropped.
        pixel_offset: Added to every side, or to width and height: 1 where a box holds its last pixel (M2Det), else 0.
        most: Kept, the best first; 0 keeps all.

    Returns:
        Indices of the kept boxes, best decayed score first, and these scores.

    Raises:
        ValueError: If ``method`` is another one.
    """
    if method not in ("linear", "gaussian"):
        raise ValueError(f"soft suppression is linear or gaussian, not {method!r}")
    across, down = pixel_offset if isinstance(pixel_offset, tuple) else (pixel_offset, pixel_offset)
    grown = boxes + boxes.new_tensor((0.0, 0.0, across, down))
    left = torch.arange(len(boxes), device=boxes.device)
    current, kept, kept_scores = scores.clone(), [], []
    while len(left) and not (most and len(kept) == most):
        place = current.argmax()
        if current[place] < least_score:
            break
        best = left[place]
        kept.append(best)
        kept_scores.append(current[place])
        others = torch.arange(len(left), device=boxes.device) != place
        left, current = left[others], current[others]
        overlap = paired_iou(grown[best], grown[left])
        if method == "linear":
            current = torch.where(overlap > iou, current * (1 - overlap), current)
        else:
            current = current * (-(overlap**2) / sigma).exp()
        alive = current >= least_score
        left, current = left[alive], current[alive]
    if not kept:
        return left[:0], current[:0]
    return torch.stack(kept), torch.stack(kept_scores)


def class_aware_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    iou: float,
    pixel_offset: float | tuple[float, float] = 0.0,
    most: int = 0,
) -> tuple[Tensor, Tensor]:
    """Linear `soft_nms` of each label alone, of which ``most`` boxes are kept: indices, best first, and scores."""
    kept, decayed = [labels[:0]], [scores[:0]]
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        best, its_scores = soft_nms(
            boxes[rows], scores[rows], method="linear", iou=iou, pixel_offset=pixel_offset, most=most
        )
        kept.append(rows[best])
        decayed.append(its_scores)
    indices, values = torch.cat(kept), torch.cat(decayed)
    values, order = values.sort(descending=True, stable=True)
    return indices[order], values


def vote_boxes(boxes: Tensor, voters: Tensor, scores: Tensor, *, iou: float) -> Tensor:
    """Box voting: each box (K, 4) becomes the mean, weighed by score, of the voters that overlap it.

    Gidaris and Komodakis, arXiv:1505.01749, section 4. Neighbours that found the same object err apart, and their mean
    errs less.

    Args:
        boxes: (K, 4) xyxy in pixels, what suppression has kept.
        voters: (N, 4), all that it chose from; each box is among them.
        scores: (N,) of the voters, above 0.
        iou: Least overlap of a voter with the box.
    """
    weights = scores * (pairwise_iou(boxes, voters) >= iou)
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights @ voters / total, boxes)
