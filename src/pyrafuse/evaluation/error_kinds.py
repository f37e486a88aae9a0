"""Why a detector loses average precision: every error has a kind, and every kind a price, the AP that mending brings.

Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv:2008.08115, section 2.

detections, objects, an IoU -> kind of each -> an oracle a kind -> gain in AP at that IoU
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrafuse.evaluation.matching import MISSED, Truth, overlapping_pairs

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
"""Overlap from which a detection is of an object, unless another is asked for, and below which it is of background."""

OUTCOMES = ("right", "classification", "localisation", "both", "duplicate", "background", "missed")
"""What a detection can be, and last what an object can be that no detection accounts for; the codes are the ranks."""

RIGHT, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSING = range(len(OUTCOMES))

_RECALLS = np.linspace(0, 1, 101)
_NO_DIVISION_BY_ZERO = np.spacing(1)  # as COCO's own code has it


@dataclass(frozen=True)
class Errors:
    """The kind of each of N detections, and of each of M objects whether it is missed.

    Attributes:
        kinds: (N,) int64, a rank in `OUTCOMES`.
        objects: (N,) int64, the object that a detection found, repeats, or comes nearest to; -1 for background.
        is_missed: (M,) bool: not found, and no error of class or place accounts for it.
    """

    kinds: NDArray[np.int64]
    objects: NDArray[np.int64]
    is_missed: NDArray[np.bool_]

    def among(self, rows: NDArray[np.bool_], truth: Truth) -> "Errors":
        """The same where there are only the detections of ``rows``, those from a score on."""
        kinds, objects = self.kinds[rows], self.objects[rows]
        return Errors(kinds, objects, _find_missed(kinds, objects, truth))


@dataclass(frozen=True)
class Gains:
    """AP as it is, and how much higher it would be if an oracle mended all errors of a kind.

    The gains do not add up to what is missing: errors hide one another.

    Attributes:
        ap: Mean over classes of the average precision, 0..1.
        by_kind: Gain of each kind of error, in the order of `OUTCOMES` without the first.
        false_positives: Gain if no detection were wrong.
        false_negatives: Gain if no object were missed.
    """

    ap: float
    by_kind: tuple[float, ...]
    false_positives: float
    false_negatives: float

    @classmethod
    def mean(cls, gains: "Sequence[Gains]") -> "Gains":
        """The mean of each figure: with one at each of COCO's ten IoUs, those of AP."""
        rows = [(each.ap, *each.by_kind, each.false_positives, each.false_negatives) for each in gains]
        ap, *by_kind, false_positives, false_negatives = np.mean(rows, axis=0).tolist()
        return cls(ap, tuple(by_kind), false_positives, false_negatives)


@dataclass(frozen=True)
class NearestObjects:
    """For each of N detections the object that it overlaps most, and by how much; -1 and 0 for none.

    Attributes:
        objects: (N,) int64.
        iou: (N,), 0 where it is below `BACKGROUND_IOU`.
    """

    objects: NDArray[np.int64]
    iou: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> "NearestObjects":
        return NearestObjects(self.objects[rows], self.iou[rows])


Nearest = tuple[NearestObjects, NearestObjects]
"""Of the detection's own class, and of all other classes."""


def find_nearest(found: NDArray[np.float64], truth: Truth) -> Nearest:
    """The nearest object of each detection (N, 8), crowds left out."""
    labels = found[:, 6].astype(np.int64)
    own, other = (NearestObjects(np.full(len(found), MISSED), np.zeros(len(found))) for _ in range(2))
    rows = np.flatnonzero(~truth.crowd)
    blocks = overlapping_pairs(
        found[:, 0].astype(np.int64), found[:, 1:5], truth.images[rows], truth.boxes[rows], truth.crowd[rows],
        BACKGROUND_IOU,
    )  # fmt: skip
    for of_found, at, iou in blocks:
        objects = rows[at]
        is_own = labels[of_found] == truth.labels[objects]
        for part, of_part in ((own, is_own), (other, ~is_own)):
            chosen = np.flatnonzero(of_part)
            chosen = chosen[_highest_of_each(of_found[chosen], iou[chosen])]
            part.objects[of_found[chosen]], part.iou[of_found[chosen]] = objects[chosen], iou[chosen]
    return own, other


def find_errors(
    found: NDArray[np.float64],
    matches: NDArray[np.int64],
    truth: Truth,
    *,
    iou: float = FOREGROUND_IOU,
    nearest: Nearest | None = None,
) -> Errors:
    """Tell what each detection is.

    Where several kinds fit, the paper leaves it open: localisation goes before classification, that before duplicate,
    as in the authors' tool.

    Args:
        found: (N, 8) image row, box (xyxy, pixels), score, label, level; none in a crowd region.
        matches: (N,) what `match_greedily` gave within image and class.
        truth: Annotated objects.
        iou: Overlap from which a detection is of an object, as in ``matches``.
        nearest: What `find_nearest` gave, where it is known.
    """
    own, other = nearest or find_nearest(found, truth)
    is_right = matches >= 0
    rules = (
        (is_right, RIGHT),
        ((own.iou >= BACKGROUND_IOU) & (own.iou < iou), LOCALISATION),
        (other.iou >= iou, CLASSIFICATION),
        (own.iou >= iou, DUPLICATE),
        (other.iou >= BACKGROUND_IOU, BOTH),
    )
    kinds = np.select([rule for rule, _ in rules], [kind for _, kind in rules], BACKGROUND)
    is_of_other = (kinds == CLASSIFICATION) | (kinds == BOTH)
    objects = np.where(is_right, matches, np.where(is_of_other, other.objects, own.objects))
    return Errors(kinds, objects, _find_missed(kinds, objects, truth))


def compute_gains(
    found: NDArray[np.float64], errors: Errors, truth: Truth, *, num_classes: int, order: NDArray[np.int64]
) -> Gains:
    """Mend the errors of one kind, and measure the gain, for each kind.

    An error of class or place becomes right if it is the best one of its object, and nothing finds that; other errors
    are left out. For missed objects nothing is added: they are no longer counted.

    Args:
        found: (N, 8) as `find_errors` has it.
        errors: What that told.
        truth: Annotated objects.
        num_classes: Number of classes, K.
        order: (N,) the rows of ``found`` by score, the best first.
    """
    labels, kinds, objects = found[order, 6].astype(np.int64), errors.kinds[order], errors.objects[order]
    is_right, is_object = kinds == RIGHT, ~truth.crowd
    counts = np.bincount(truth.labels[is_object], minlength=num_classes)
    missed = np.bincount(truth.labels[errors.is_missed], minlength=num_classes)
    right = np.bincount(labels[is_right], minlength=num_classes)
    true_labels = np.append(truth.labels, -1)  # the last one is that of background
    mended = _find_menders(kinds, objects, num_objects=len(truth.labels))

    # a class that has lost all of its objects is still measured, at 0, if it has detections
    is_found = np.bincount(labels, minlength=num_classes) > 0

    def mean_ap_of(fewer: NDArray[np.int64]) -> float:
        return _mean_ap(labels, is_right, fewer, measured=(fewer > 0) | ((counts > 0) & is_found))

    def mend(kind: int) -> float:
        if kind == MISSING:
            return mean_ap_of(counts - missed)
        is_mended = mended & (kinds == kind)
        kept = (kinds != kind) | is_mended
        moved = np.where(is_mended, true_labels[objects], labels)
        return _mean_ap(moved[kept], (is_right | is_mended)[kept], counts)

    ap = _mean_ap(labels, is_right, counts)
    return Gains(
        ap=ap,
        by_kind=tuple(mend(kind) - ap for kind in range(1, len(OUTCOMES))),
        false_positives=_mean_ap(labels[is_right], is_right[is_right], counts) - ap,
        false_negatives=mean_ap_of(right) - ap,
    )


def _find_missed(kinds: NDArray[np.int64], objects: NDArray[np.int64], truth: Truth) -> NDArray[np.bool_]:
    is_missed = ~truth.crowd
    is_missed[objects[np.isin(kinds, (RIGHT, CLASSIFICATION, LOCALISATION))]] = False
    return is_missed


def _find_menders(kinds: NDArray[np.int64], objects: NDArray[np.int64], *, num_objects: int) -> NDArray[np.bool_]:
    """(N,) which errors, the best first, would find an object that nothing finds: the best of class or place for each.

    One that would find it a second time is no gain: an oracle leaves it out.
    """
    is_taken = np.zeros(num_objects + 1, np.bool_)
    is_taken[objects[kinds == RIGHT]] = True
    fixable = np.flatnonzero(np.isin(kinds, (CLASSIFICATION, LOCALISATION)) & ~is_taken[objects])
    is_mender = np.zeros(len(kinds), np.bool_)
    is_mender[fixable[np.unique(objects[fixable], return_index=True)[1]]] = True
    return is_mender


def _highest_of_each(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place of the highest value of each group, of equal ones the first."""
    order = np.lexsort((-values, groups))
    return order[np.unique(groups[order], return_index=True)[1]]


def _mean_ap(
    labels: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    counts: NDArray[np.int64],
    *,
    measured: NDArray[np.bool_] | None = None,
) -> float:
    """COCO's average precision at one IoU, the mean over classes; NaN where there are none.

    Args:
        labels: (N,) class of each detection, the best first.
        is_right: (N,) whether it finds an object.
        counts: (K,) objects of each class.
        measured: (K,) which classes count; by default those with objects.
    """
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(len(counts) + 1))
    classes = np.flatnonzero(counts > 0 if measured is None else measured)
    precisions = [_ap(is_right[order[ends[k] : ends[k + 1]]], int(counts[k])) for k in classes.tolist()]
    return float(np.mean(precisions)) if precisions else float("nan")


def _ap(is_right: NDArray[np.bool_], num_objects: int) -> float:
    """The mean of the precision at 101 recalls, at each the highest from there on; 0 without objects."""
    if not num_objects:
        return 0.0
    num_right = np.cumsum(is_right)
    precision = num_right / (np.arange(1, len(is_right) + 1) + _NO_DIVISION_BY_ZERO)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(num_right / num_objects, _RECALLS)].mean())
