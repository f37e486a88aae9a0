"""Greedy suppression of one image's boxes, for files that leave it to whoever runs them."""

import numpy as np
from numpy.typing import NDArray


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    iou: float,
    most: int,
    most_candidates: int,
) -> NDArray[np.int64]:
    """Rows of the boxes that no better box of their class overlaps by more than ``iou``, the best first.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) scores.
        labels: (N,).
        iou: Overlap above which two boxes of a class are one object.
        most: Number of rows at most; 0 for all.
        most_candidates: Number of boxes that are looked at, the best first.
    """
    rows = np.argsort(-scores, kind="stable")[:most_candidates]
    exact = boxes.astype(np.float64)  # as PyTorch's suppression counts
    kept: list[int] = []
    while len(rows) and (not most or len(kept) < most):
        best, rows = rows[0], rows[1:]
        kept.append(int(best))
        is_same = (labels[rows] == labels[best]) & (_ious(exact[best], exact[rows]) > iou)
        rows = rows[~is_same]
    return np.asarray(kept, np.int64)


def _ious(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of a box with each of (N, 4); 0 with a box that has no area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(axis=1)
    union = _area(box) + _area(boxes) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[..., 2:] - boxes[..., :2]).clip(0).prod(axis=-1)
