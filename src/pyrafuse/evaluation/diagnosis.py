"""Why a detector fails: its errors by kind, size and level, F1 against confidence, and whether scores can be believed.

`CocoEvaluator` -> detections that count, matched at each of COCO's IoUs -> gains; the rest of `Diagnosis` is at 0.50
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.typed_values import without_nan
from pyrafuse.evaluation.coco import FALLBACK_CONFIDENCE, SIZES, CocoEvaluator
from pyrafuse.evaluation.error_kinds import MISSING, OUTCOMES, Errors, Gains, compute_gains, find_errors, find_nearest
from pyrafuse.evaluation.matching import IN_CROWD, Truth, find_best_confidence, match_greedily

IOUS = np.linspace(0.5, 0.95, 10)
"""Overlaps whose mean is COCO's AP."""

CONFIDENCES = np.linspace(0, 1, 101)
"""Where F1 is computed."""

NUM_BINS = 10
"""Scores are compared with the precision that they come to in so many ranges of equal width."""

REMEDIES = {
    "classification": "add images of the classes that are confused; the confusion matrix names them",
    "localisation": "train longer or at a larger size, and look whether the annotated boxes fit tightly",
    "both": "these boxes are neither well placed nor well named: train longer, or add images",
    "duplicate": "lower --nms-iou, so that two boxes on one object become one",
    "background": "look whether these objects lack annotations, and add images of such backgrounds",
    "missed": "use a larger size or a finer pyramid level for small objects, and add images of such objects",
}
"""What helps against each kind of error."""


@dataclass(frozen=True)
class Calibration:
    """How the scores of detections compare with the share of them that is right, in ranges of equal width.

    Attributes:
        counts: (B,) detections in each range.
        scores: (B,) their mean score; NaN where there are none.
        precisions: (B,) share of them that is right at IoU 0.50; NaN where there are none.
    """

    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    precisions: NDArray[np.float64]

    def error(self, first: int = 0) -> float:
        """The expected calibration error: mean distance of score and precision, weighted by detections.

        Args:
            first: Leave out so many ranges of low scores: they hold most detections, and all of them are unlikely.
        """
        counts = self.counts[first:]
        distances = np.abs(self.scores - self.precisions)[first:]
        return float((np.nan_to_num(distances) * counts).sum() / counts.sum()) if counts.any() else float("nan")


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` finds. Outcomes are counted in the order of `OUTCOMES`, the missed objects last.

    Attributes:
        gains: AP, and what mending each kind of error would bring: at each IoU of `IOUS` its own errors are mended.
        gains_50: The same of AP50.
        outcomes: (7,) counts over all detections.
        confidence: Detections that score less are in none of the counts below.
        by_class: (K, 7) counts by the class of the detection, or of the missed object.
        by_size: (3, 7) counts by the size of the object; of background, by that of the detection.
        by_level: (L, 7) counts by the pyramid level of the detection, finest first, missed objects left out; (0, 7)
            where one level alone is known.
        f1: (K, 101) F1 of each class with the detections from each confidence of `CONFIDENCES` on; NaN for a class
            without objects.
        f1_of_all: (101,) the same of all classes together.
        f1_at_confidence: (K + 1,) F1 of each class, and last of all together, from ``confidence`` on.
        calibration: Scores against precision.
    """

    gains: Gains
    gains_50: Gains
    outcomes: NDArray[np.int64]
    confidence: float
    by_class: NDArray[np.int64]
    by_size: NDArray[np.int64]
    by_level: NDArray[np.int64]
    f1: NDArray[np.float64]
    f1_of_all: NDArray[np.float64]
    f1_at_confidence: NDArray[np.float64]
    calibration: Calibration

    def ranked_gains(self) -> list[tuple[str, float]]:
        """Kinds of errors that cost something, and the gain in AP of mending each, the highest first."""
        gains = zip(OUTCOMES[1:], self.gains.by_kind, strict=True)
        return sorted((pair for pair in gains if pair[1] > 0), key=lambda pair: -pair[1])

    def advice(self) -> str:
        """What would bring most AP, in one sentence with its figures."""
        ranked = self.ranked_gains()
        now = self.gains.ap
        if not ranked:
            if not self.outcomes[:MISSING].any():
                return "Nothing is found: AP is 0."
            return (
                "No error costs AP."
                if now == 1
                else (f"Mending one kind of errors alone brings nothing: AP stays at {now:.3f}.")
            )
        (kind, gain), *others = ranked
        of = "objects that are missed" if kind == OUTCOMES[MISSING] else f"{kind} errors"
        if kind == "both":
            of = "errors of class and place at once"
        second = f"; the next is {others[0][0]}, with {others[0][1]:+.3f}" if others else ""
        return f"Mending {of} would bring most: AP from {now:.3f} to {now + gain:.3f} ({gain:+.3f}){second}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: None where a figure is undefined."""
        count_rows = {key: getattr(self, key).tolist() for key in ("by_class", "by_size", "by_level")}
        gains = {"ap": self.gains, "ap50": self.gains_50}
        calibration = self.calibration
        return without_nan(
            {
                **{name: each.ap for name, each in gains.items()},
                **{f"gains_{name}": dict(zip(OUTCOMES[1:], each.by_kind, strict=True)) for name, each in gains.items()},
                "gain_without_false_positives": self.gains.false_positives,
                "gain_without_false_negatives": self.gains.false_negatives,
                "advice": self.advice(),
                "outcomes": list(OUTCOMES),
                "counts": self.outcomes.tolist(),
                "confidence": self.confidence,
                **{f"counts_{key}": rows for key, rows in count_rows.items()},
                "f1_confidences": CONFIDENCES.tolist(),
                "f1": self.f1.tolist(),
                "f1_of_all": self.f1_of_all.tolist(),
                "f1_at_confidence": self.f1_at_confidence.tolist(),
                "expected_calibration_error": calibration.error(),
                "calibration": {
                    "counts": calibration.counts.tolist(),
                    "scores": calibration.scores.tolist(),
                    "precisions": calibration.precisions.tolist(),
                },
            }
        )


def diagnose(evaluator: CocoEvaluator) -> Diagnosis:
    """Tell the errors of what ``evaluator`` holds.

    As in COCO's figures, the best detections of each image and class count, and those in a crowd region do not.
    """
    truth, num_classes = Truth.of(evaluator.data.records), len(evaluator.data.names)
    judged = _judge(evaluator, truth)
    at_50 = next(judged)
    found, matches, errors = at_50.found, at_50.matches, at_50.errors
    labels, scores = found[:, 6].astype(np.int64), found[:, 5]
    is_right, objects = matches >= 0, ~truth.crowd
    best = find_best_confidence(scores, is_right, int(objects.sum())).confidence
    confidence = FALLBACK_CONFIDENCE if np.isnan(best) else best
    is_kept = scores >= confidence
    kept = errors.among(is_kept, truth)
    counts = np.bincount(truth.labels[objects], minlength=num_classes)
    levels = found[is_kept, 7].astype(np.int64)
    by_level = _count(kept, levels, np.full(len(truth.labels), -1), int(levels.max(initial=0)) + 1)
    at = np.append(CONFIDENCES, confidence)
    parts = [(labels == k, int(counts[k])) for k in range(num_classes)] + [(np.full(len(found), True), counts.sum())]
    f1 = np.stack([_compute_f1(scores[rows], is_right[rows], num_objects, at) for rows, num_objects in parts])
    return Diagnosis(
        gains=Gains.mean([at_50.gains, *(each.gains for each in judged)]),
        gains_50=at_50.gains,
        outcomes=_count(errors, np.zeros(len(found), np.int64), np.zeros(len(truth.labels), np.int64), 1)[0],
        confidence=float(confidence),
        by_class=_count(kept, labels[is_kept], truth.labels, num_classes),
        by_size=_count(kept, *_find_sizes(found[is_kept], kept, truth), len(SIZES)),
        by_level=by_level if len(by_level) > 1 and levels.min(initial=0) >= 0 else by_level[:0],
        f1=f1[:-1, :-1],
        f1_of_all=f1[-1, :-1],
        f1_at_confidence=f1[:, -1],
        calibration=_calibrate(scores, is_right),
    )


def match_counted(evaluator: CocoEvaluator, truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The detections that count, and the object that each finds at IoU 0.50; those in a crowd region left out."""
    found = _find_counted(evaluator)
    matches = _match(found, truth, len(evaluator.data.names), IOUS[0])
    counts = matches != IN_CROWD
    return found[counts], matches[counts]


@dataclass(frozen=True)
class _Judged:
    """The detections that count at one IoU, the object that each finds, their errors, and what mending these brings."""

    found: NDArray[np.float64]
    matches: NDArray[np.int64]
    errors: Errors
    gains: Gains


def _judge(evaluator: CocoEvaluator, truth: Truth) -> Iterator[_Judged]:
    """The detections of ``evaluator`` at each of `IOUS`."""
    counted, num_classes = _find_counted(evaluator), len(evaluator.data.names)
    nearest, ranks = find_nearest(counted, truth), evaluator.image_ranks()
    for iou in IOUS:
        matches = _match(counted, truth, num_classes, iou)
        counts = matches != IN_CROWD
        found, matches = counted[counts], matches[counts]
        errors = find_errors(found, matches, truth, iou=iou, nearest=(nearest[0][counts], nearest[1][counts]))
        order = np.lexsort((ranks[found[:, 0].astype(np.int64)], -found[:, 5]))
        gains = compute_gains(found, errors, truth, num_classes=num_classes, order=order)
        yield _Judged(found, matches, errors, gains)


def _find_counted(evaluator: CocoEvaluator) -> NDArray[np.float64]:
    """The best detections of each image and class."""
    found, num_classes = evaluator.rows(), len(evaluator.data.names)
    groups = found[:, 0].astype(np.int64) * num_classes + found[:, 6].astype(np.int64)
    return found[_rank_in_groups(groups, found[:, 5]) < evaluator.max_detections]


def _match(found: NDArray[np.float64], truth: Truth, num_classes: int, iou: float) -> NDArray[np.int64]:
    images, labels = found[:, 0].astype(np.int64), found[:, 6].astype(np.int64)
    return match_greedily(
        images * num_classes + labels, found[:, 1:5], found[:, 5],
        truth.images * num_classes + truth.labels, truth.boxes, truth.crowd, iou=iou,
    )  # fmt: skip


def classify_sizes(areas: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rank in `SIZES` of each area in square pixels."""
    return np.digitize(areas, [low for low, _ in SIZES.values()][1:])


def _rank_in_groups(groups: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rank of each row in its group, the highest score first, of equal ones the earlier."""
    order = np.lexsort((-scores, groups))
    starts = np.searchsorted(groups[order], groups[order])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts
    return ranks


def _find_sizes(
    found: NDArray[np.float64], errors: Errors, truth: Truth
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The size of each detection's object, or of itself where it has none, and of each object."""
    own, of_objects = classify_sizes((found[:, 3:5] - found[:, 1:3]).prod(axis=1)), classify_sizes(truth.areas)
    return np.where(errors.objects >= 0, np.append(of_objects, 0)[errors.objects], own), of_objects


def _count(
    errors: Errors, of_found: NDArray[np.int64], of_objects: NDArray[np.int64], num_groups: int
) -> NDArray[np.int64]:
    """(num_groups, 7) outcomes of the detections and missed objects of each group; those of group -1 are left out."""
    groups = np.concatenate([of_found, of_objects[errors.is_missed]])
    kinds = np.concatenate([errors.kinds, np.full(int(errors.is_missed.sum()), MISSING)])
    known = groups >= 0
    size = num_groups * len(OUTCOMES)
    return np.bincount(groups[known] * len(OUTCOMES) + kinds[known], minlength=size).reshape(num_groups, -1)


def _compute_f1(
    scores: NDArray[np.float64], is_right: NDArray[np.bool_], num_objects: int, confidences: NDArray[np.float64]
) -> NDArray[np.float64]:
    """F1 of the detections from each of ``confidences`` on; NaN without objects."""
    if not num_objects:
        return np.full(len(confidences), np.nan)
    kept = len(scores) - np.searchsorted(np.sort(scores), confidences)
    right = is_right.sum() - np.searchsorted(np.sort(scores[is_right]), confidences)
    return 2 * right / (kept + num_objects)


def _calibrate(scores: NDArray[np.float64], is_right: NDArray[np.bool_]) -> Calibration:
    bins = np.clip((scores * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    means = [
        np.divide(np.bincount(bins, values, NUM_BINS), counts, out=np.full(NUM_BINS, np.nan), where=counts > 0)
        for values in (scores, is_right.astype(np.float64))
    ]
    return Calibration(counts, *means)
