"""Annotations that a detector contradicts where it is sure: detections, objects -> missing, other class, loose box.

Nobody knows who is right: a person looks. What the detector is surest of comes first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.error_kinds import CLASSIFICATION, find_errors
from pyrafuse.evaluation.matching import IN_CROWD, Truth, find_best_confidence, match_greedily, overlapping_pairs

LOOSE_IOU = 0.75
"""Overlap with a sure detection below which a box fits badly."""

EMPTY_IOU = 0.3
"""Overlap with every annotated box below which there is none for a detection."""

LEAST_OFF_PX = 3.0
"""Distance of two sides below which boxes do not differ: one pixel of a small object is much of its overlap."""

_REPEATED_IOU = 0.5


@dataclass(frozen=True)
class Doubt:
    """One annotation that a detector contradicts.

    Attributes:
        kind: No box where an object was found, a box of another class, or a box that fits badly.
        image: Row of the image.
        box: Where the object was found, xyxy in pixels.
        label: Label of the class that the detector sees.
        score: How sure the detector is, 0..1.
        object: Row of the annotated object; -1 where there is none.
        overlap: IoU of the two boxes; 0 where there is one.
    """

    kind: Literal["missing", "class", "loose"]
    image: int
    box: tuple[float, ...]
    label: int
    score: float
    object: int = -1
    overlap: float = 0.0


def find_doubts(evaluator: CocoEvaluator, truth: Truth, *, least: float | None = None) -> tuple[Doubt, ...]:
    """What the detections of ``evaluator`` contradict: missing objects, classes, loose boxes; the surest of each first.

    Args:
        evaluator: Holds the detections.
        truth: The objects of its data.
        least: Score from which on a detection is sure; by default the median of those that are right, from where F1 on
            these data is best. A detector that finds nothing right is never sure.
    """
    found, num_classes = evaluator.rows(), len(evaluator.data.names)
    labels = found[:, 6].astype(np.int64)
    matches = match_greedily(
        found[:, 0].astype(np.int64) * num_classes + labels, found[:, 1:5], found[:, 5],
        truth.images * num_classes + truth.labels, truth.boxes, truth.crowd,
    )  # fmt: skip
    counted = matches != IN_CROWD
    if least is None:
        least = _find_sure_score(found[counted, 5], matches[counted] >= 0, int((~truth.crowd).sum()))
    rows = np.flatnonzero(counted & (found[:, 5] >= least))
    rows = rows[np.argsort(-found[rows, 5], kind="stable")]
    found, matches = found[rows], matches[rows]
    return (*_find_missing(found, truth), *_find_classes(found, matches, truth), *_find_loose(found, matches, truth))


def _find_sure_score(scores: NDArray[np.float64], is_right: NDArray[np.bool_], num_objects: int) -> float:
    if not is_right.any():
        return np.inf
    best = find_best_confidence(scores, is_right, num_objects).confidence
    return float(np.median(scores[is_right & (scores >= best)]))


def _find_missing(found: NDArray[np.float64], truth: Truth) -> list[Doubt]:
    """Detections where no box is; of several in one place the surest."""
    images = found[:, 0].astype(np.int64)
    is_empty = np.ones(len(found), np.bool_)
    for at, _, _ in overlapping_pairs(images, found[:, 1:5], truth.images, truth.boxes, truth.crowd, EMPTY_IOU):
        is_empty[at] = False
    rows = np.flatnonzero(is_empty)
    images, boxes, is_first = images[rows], found[rows, 1:5], np.ones(len(rows), np.bool_)
    for at, other, _ in overlapping_pairs(images, boxes, images, boxes, np.zeros(len(rows), np.bool_), _REPEATED_IOU):
        is_first[at[other < at]] = False
    return [_doubt("missing", found[row]) for row in rows[is_first].tolist()]


def _find_classes(found: NDArray[np.float64], matches: NDArray[np.int64], truth: Truth) -> list[Doubt]:
    """Detections on an object of another class that none of its own class finds."""
    errors = find_errors(found, matches, truth)
    is_named = np.zeros(len(truth.images) + 1, np.bool_)
    is_named[matches[matches >= 0]] = True
    rows = np.flatnonzero((errors.kinds == CLASSIFICATION) & ~is_named[errors.objects])
    rows = np.sort(rows[np.unique(errors.objects[rows], return_index=True)[1]])  # of each object the surest
    overlaps = _overlaps(found[rows, 1:5], truth.boxes[errors.objects[rows]])
    return [
        _doubt("class", found[row], int(errors.objects[row]), overlap)
        for row, overlap in zip(rows.tolist(), overlaps.tolist(), strict=True)
    ]


def _find_loose(found: NDArray[np.float64], matches: NDArray[np.int64], truth: Truth) -> list[Doubt]:
    rows = np.flatnonzero(matches >= 0)
    boxes, own = found[rows, 1:5], truth.boxes[matches[rows]]
    overlaps = _overlaps(boxes, own)
    is_loose = (overlaps < LOOSE_IOU) & (np.abs(boxes - own).max(axis=1, initial=0) >= LEAST_OFF_PX)
    return [
        _doubt("loose", found[row], int(matches[row]), overlap)
        for row, overlap in zip(rows[is_loose].tolist(), overlaps[is_loose].tolist(), strict=True)
    ]


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) IoU of each of ``boxes`` with its own one of ``others``."""
    groups, overlaps = np.arange(len(boxes)), np.zeros(len(boxes))
    for at, _, overlap in overlapping_pairs(groups, boxes, groups, others, np.zeros(len(boxes), np.bool_), 0):
        overlaps[at] = overlap
    return overlaps


def _doubt(
    kind: Literal["missing", "class", "loose"], found: NDArray[np.float64], row: int = -1, overlap: float = 0.0
) -> Doubt:
    image, *box, score, label, _ = found.tolist()
    return Doubt(kind, int(image), tuple(box), int(label), score, row, overlap)
