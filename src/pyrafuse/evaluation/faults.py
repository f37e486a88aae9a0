"""The images with the most mistakes: outcome -> counts an image -> the worst ones with their boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.records import ImageRecord
from pyrafuse.evaluation.matching import Outcome, Truth
from pyrafuse.evaluation.result import CROWD, FALSE, MISSED, RIGHT, WRONG_CLASS, ImageFaults, Mark

MAX_WORST = 12


def find_worst(
    found: NDArray[np.float64],
    outcome: Outcome,
    truth: Truth,
    records: Sequence[ImageRecord],
    *,
    limit: int = MAX_WORST,
) -> tuple[ImageFaults, ...]:
    """The images with the most mistakes, the worst first; of equally many, first the one with fewer right detections.

    An object that was missed, a detection of background and an object under another class's name are a mistake each.

    Args:
        found: (N, 8) image row, box (xyxy, pixels), score, label, level.
        outcome: What `judge_detections` told of them.
        truth: Annotated objects.
        records: The images.
        limit: Images at most; those without a mistake are never among them.
    """
    kept = found[outcome.rows]
    images = kept[:, 0].astype(np.int64)
    was_met = np.zeros(len(truth.images), dtype=bool)
    was_met[outcome.objects[outcome.objects >= 0]] = True
    is_named = np.zeros(len(truth.images), dtype=bool)
    is_named[outcome.objects[outcome.is_right]] = True
    is_missed = ~was_met & ~truth.crowd

    num_faults = _count(images[~outcome.is_right], records) + _count(truth.images[is_missed], records)
    num_right = _count(images[outcome.is_right], records)
    order = np.lexsort((num_right, -num_faults))
    of_found = np.where(outcome.is_right, RIGHT, np.where(outcome.objects >= 0, WRONG_CLASS, FALSE))
    of_objects = np.where(truth.crowd, CROWD, np.where(is_named, RIGHT, np.where(was_met, WRONG_CLASS, MISSED)))
    worst = []
    for image in order[num_faults[order] > 0][:limit].tolist():
        in_found, in_truth = images == image, truth.images == image
        worst.append(
            ImageFaults(
                path=str(records[image].path),
                found=make_marks(kept[in_found, 1:5], kept[in_found, 6], of_found[in_found], kept[in_found, 5]),
                objects=make_marks(truth.boxes[in_truth], truth.labels[in_truth], of_objects[in_truth]),
            )
        )
    return tuple(worst)


def _count(images: NDArray[np.int64], records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    return np.bincount(images, minlength=len(records))


def make_marks(
    boxes: NDArray[Any], labels: NDArray[Any], kinds: NDArray[np.str_], scores: NDArray[Any] | None = None
) -> tuple[Mark, ...]:
    """Boxes (N, 4) with their labels, kinds and, of detections, scores, as marks in an image."""
    values = [None] * len(labels) if scores is None else scores.tolist()
    return tuple(
        Mark(box=tuple(box), label=int(label), kind=str(kind), score=score)
        for box, label, kind, score in zip(boxes.tolist(), labels.tolist(), kinds.tolist(), values, strict=True)
    )
