"""What an exported file gives -> columns of each image's detections."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.detections import Detections
from pyrafuse.base.exported import DETECTION_OUTPUTS, Interface
from pyrafuse.runtime.suppression import suppress

OUTPUTS = {"nms": DETECTION_OUTPUTS, "rows": ("output",)}
"""Names of the outputs that detections are made of."""

MAX_CANDIDATES = 10_000
"""Boxes that suppression looks at where the card does not say it."""


@dataclass(frozen=True)
class Limits:
    """What is kept of the detections of an image.

    Attributes:
        score: Least score that is kept; with ``multi_label`` it must be exceeded.
        nms_iou: Overlap above which two boxes of a class are one object, where the file does not suppress.
        max_detections: Kept, the best first; 0 keeps all.
        max_candidates: Boxes that suppression looks at, the best first, where the file does not suppress.
        multi_label: Whether a box stands for every class that scores.
        labels: The classes that are kept; empty keeps all.
        is_scored: Whether the file applies ``score`` itself, to something else than the scores that it gives.
    """

    score: float
    nms_iou: float
    max_detections: int
    max_candidates: int = MAX_CANDIDATES
    multi_label: bool = False
    labels: tuple[int, ...] = ()
    is_scored: bool = False


def read_outputs(
    found: Mapping[str, NDArray[Any]], num_images: int, interface: Interface, limits: Limits
) -> list[Detections]:
    """Detections in each image, boxes as the file gives them.

    Raises:
        Exception: If the outputs are no columns of detections.
    """
    read = _read_padded if interface.output == "nms" else _read_rows
    columns = (_require_columns(read(found, image)) for image in range(num_images))
    return [_limit(each, limits, is_suppressed=interface.output == "nms") for each in columns]


def _require_columns(found: Detections) -> Detections:
    """Refuse boxes that are not (N, 4), and other columns that are not (N,)."""
    rows, others = len(found.boxes), (found.scores, found.labels, found.levels)
    if found.boxes.shape != (rows, 4) or any(column.shape != (rows,) for column in others):
        shapes = ", ".join(str(column.shape) for column in (found.boxes, *others))
        raise ValueError(f"boxes, scores, labels and levels of an image have the shapes {shapes}")
    return found


def _read_padded(found: Mapping[str, NDArray[Any]], image: int) -> Detections:
    """The places of ``nms`` that hold something."""
    count = max(0, int(found["count"][image]))
    boxes, scores, labels, levels, rows = (found[name][image, :count] for name in DETECTION_OUTPUTS[:-1])
    return Detections(
        boxes.astype(np.float32),
        scores.astype(np.float32),
        labels.astype(np.int64),
        levels.astype(np.int64),
        rows=rows.astype(np.int64),
    )


def _read_rows(found: Mapping[str, NDArray[Any]], image: int) -> Detections:
    """The rows of ``rows`` that hold something; they tell no level."""
    values = found["output"][image].astype(np.float32)
    rows = np.flatnonzero(values[:, 4] > 0)
    values = values[rows]
    return Detections(
        values[:, :4], values[:, 4], values[:, 5].astype(np.int64), np.zeros(len(values), np.int64), rows=rows
    )


def _limit(found: Detections, limits: Limits, *, is_suppressed: bool) -> Detections:
    passes = found.scores > limits.score if limits.multi_label else found.scores >= limits.score
    passes |= limits.is_scored
    if limits.labels:
        passes &= np.isin(found.labels, limits.labels)
    found = found[passes]
    if is_suppressed:
        return found[: limits.max_detections or None]
    kept = suppress(
        found.boxes,
        found.scores,
        found.labels,
        iou=limits.nms_iou,
        most=limits.max_detections,
        most_candidates=limits.max_candidates,
    )
    return found[kept]
