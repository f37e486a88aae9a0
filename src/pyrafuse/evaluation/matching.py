"""Which detection finds which object at one IoU, where the best confidence lies, and what is mistaken for what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.records import ImageRecord
from pyrafuse.evaluation.result import OperatingPoint

MISSED = -1
IN_CROWD = -2

_PAIRS_AT_ONCE = 2_000_000  # bounds memory: a pair costs about 100 bytes


@dataclass(frozen=True)
class Truth:
    """The M objects of a whole data set, flat.

    Attributes:
        images: (M,) int64, the row of each object's image.
        boxes: (M, 4) float64, xyxy in pixels.
        labels: (M,) int64 class indices.
        crowd: (M,) bool.
        areas: (M,) float64, pixels.
    """

    images: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> "Truth":
        """The objects of ``records``, one image after the other."""
        return cls(
            images=np.repeat(np.arange(len(records)), [len(r.labels) for r in records]),
            boxes=_joined([r.boxes for r in records], np.float64).reshape(-1, 4),
            labels=_joined([r.labels for r in records], np.int64),
            crowd=_joined([r.crowd for r in records], np.bool_),
            areas=_joined([r.areas for r in records], np.float64),
        )


def match_greedily(
    found_groups: NDArray[np.int64],
    found_boxes: NDArray[np.float64],
    found_scores: NDArray[np.float64],
    true_groups: NDArray[np.int64],
    true_boxes: NDArray[np.float64],
    true_crowd: NDArray[np.bool_],
    *,
    iou: float = 0.5,
) -> NDArray[np.int64]:
    """Give each detection, best first, the free object of its group that it overlaps most, as COCO does.

    A group is whatever must agree: an image, or an image and a class. Detections and objects are rows of arrays over
    the whole data set; boxes are xyxy in pixels.

    Returns:
        (N,) the row of the object that each detection found; `MISSED` for none, `IN_CROWD` where the detection found
        no object and lies in a crowd region, so that it is neither right nor wrong.
    """
    matches = np.full(len(found_groups), MISSED, dtype=np.int64)
    blocks = overlapping_pairs(found_groups, found_boxes, true_groups, true_boxes, true_crowd, iou)
    pair_found, pair_true, pair_iou = (np.concatenate(part) for part in zip(*blocks, strict=True))
    in_crowd = true_crowd[pair_true]
    matches[pair_found[in_crowd]] = IN_CROWD
    rank = np.empty(len(found_scores), dtype=np.int64)
    rank[np.argsort(-found_scores, kind="stable")] = np.arange(len(found_scores))
    # of two objects overlapped equally pycocotools takes the later one
    order = np.lexsort((-pair_true, -pair_iou, rank[pair_found]))
    order = order[~in_crowd[order]]
    found, true = pair_found[order], pair_true[order]
    is_free = np.ones(len(true_groups), dtype=bool)
    while len(found):  # a few times: at once all that take their first choice, where no better detection wants it
        wanted = np.unique(true, return_index=True)[1]
        sure = wanted[(wanted == 0) | (found[wanted] != found[wanted - 1])]
        matches[found[sure]] = true[sure]
        is_free[true[sure]] = False
        left = (matches[found] < 0) & is_free[true]
        found, true = found[left], true[left]
    return matches


def find_best_confidence(scores: NDArray[np.float64], is_right: NDArray[np.bool_], num_objects: int) -> OperatingPoint:
    """The confidence at which detections (scores, right or wrong) have the highest F1.

    Returns:
        Only NaN where no detection is right: no confidence is better than another then.
    """
    if not num_objects or not is_right.any():
        return OperatingPoint(*[float("nan")] * 4)
    order = np.argsort(-scores, kind="stable")
    scores, num_right = scores[order], np.cumsum(is_right[order])
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # equal scores stand or fall together
    f1 = 2 * num_right[ends] / (ends + 1 + num_objects)
    best = int(np.argmax(f1))
    kept = int(ends[best])
    return OperatingPoint(
        confidence=float(scores[kept]),
        precision=float(num_right[kept] / (kept + 1)),
        recall=float(num_right[kept] / num_objects),
        f1=float(f1[best]),
    )


@dataclass(frozen=True)
class Outcome:
    """What the D detections that count were, at one IoU and from one confidence on.

    Attributes:
        rows: (D,) which rows of all detections these are.
        objects: (D,) the object that each one found or was mistaken in; `MISSED` for background.
        is_right: (D,) bool: found under its own class.
    """

    rows: NDArray[np.int64]
    objects: NDArray[np.int64]
    is_right: NDArray[np.bool_]


def judge_detections(
    found: NDArray[np.float64], matches: NDArray[np.int64], truth: Truth, *, confidence: float, iou: float = 0.5
) -> Outcome:
    """Tell the right detections from those of another class's object and those of background.

    An object found under its own name counts as that, whatever else lies on it; only the objects and detections left
    over are matched across classes.

    Args:
        found: (N, 8) image row, box (xyxy, pixels), score, label, level.
        matches: (N,) what `match_greedily` gave within image and class.
        truth: Annotated objects.
        confidence: Detections scoring less are left out.
        iou: Overlap that a match across classes needs.
    """
    rows = np.flatnonzero((found[:, 5] >= confidence) & (matches != IN_CROWD))
    objects = matches[rows].copy()
    is_right = objects >= 0
    is_left = ~truth.crowd
    is_left[objects[is_right]] = False
    left, rest = np.flatnonzero(is_left), found[rows[~is_right]]
    mistaken = match_greedily(
        rest[:, 0].astype(np.int64), rest[:, 1:5], rest[:, 5],
        truth.images[left], truth.boxes[left], truth.crowd[left], iou=iou,
    )  # fmt: skip
    mistaken[mistaken >= 0] = left[mistaken[mistaken >= 0]]
    objects[~is_right] = mistaken
    return Outcome(rows, objects, is_right)


def count_confusions(
    found: NDArray[np.float64], outcome: Outcome, truth: Truth, *, num_classes: int
) -> NDArray[np.int64]:
    """Count what each object was taken for; the diagonal holds exactly the true positives.

    Args:
        found: (N, 8) image row, box (xyxy, pixels), score, label, level.
        outcome: What `judge_detections` told of them.
        truth: Annotated objects.
        num_classes: Number of classes, K.

    Returns:
        (K+1, K+1): a row a true class, a column a predicted one; the last row is background that was taken for an
        object, the last column objects that were not found.
    """
    is_missed = ~truth.crowd
    is_missed[outcome.objects[outcome.objects >= 0]] = False
    missed = truth.labels[is_missed]
    labels = np.append(truth.labels, num_classes)  # the last one is that of MISSED
    true = np.concatenate([labels[outcome.objects], missed])
    predicted = np.concatenate([found[outcome.rows, 6].astype(np.int64), np.full(len(missed), num_classes)])
    side = num_classes + 1
    return np.bincount(true * side + predicted, minlength=side * side).reshape(side, side)


def overlapping_pairs(
    found_groups: NDArray[np.int64],
    found_boxes: NDArray[np.float64],
    true_groups: NDArray[np.int64],
    true_boxes: NDArray[np.float64],
    true_crowd: NDArray[np.bool_],
    iou: float,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """All (detection, object, IoU) of one group that overlap by ``iou`` or more, in blocks that bound the memory.

    All pairs of a detection are in one block, in the order of the detections; there is one block at least.
    """
    order = np.argsort(true_groups, kind="stable")
    first = np.searchsorted(true_groups[order], found_groups, side="left")
    counts = np.searchsorted(true_groups[order], found_groups, side="right") - first
    blocks = np.cumsum(counts) // _PAIRS_AT_ONCE
    for rows in np.split(np.arange(len(found_groups)), np.flatnonzero(np.diff(blocks)) + 1):
        found = np.repeat(rows, counts[rows])
        starts = np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
        true = order[np.repeat(first[rows], counts[rows]) + np.arange(len(found)) - starts]
        overlap = _paired_iou(found_boxes[found], true_boxes[true], true_crowd[true])
        near = overlap >= iou
        yield found[near], true[near], overlap[near]


def _paired_iou(found: NDArray[np.float64], true: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU of row i with row i; of a crowd, the share of the detection that lies in it."""
    sides = np.minimum(found[:, 2:], true[:, 2:]) - np.maximum(found[:, :2], true[:, :2])
    intersection = np.clip(sides, 0, None).prod(axis=1)
    found_area = (found[:, 2:] - found[:, :2]).prod(axis=1)
    true_area = (true[:, 2:] - true[:, :2]).prod(axis=1)
    whole = np.where(crowd, found_area, found_area + true_area - intersection)
    return np.divide(intersection, whole, out=np.zeros_like(whole), where=whole > 0)


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.zeros(0, dtype)
