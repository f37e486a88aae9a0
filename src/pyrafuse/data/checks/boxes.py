"""Boxes that may be wrong: all objects in flat arrays -> tiny ones, two on one object, sizes far from their class's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.reading.problems import Evidence, Problem

TINY_PX = 2.0
"""A box thinner than this is told of: no detector finds it, and most are annotation errors."""

STACKED_IOU = 0.9
"""Two boxes of a class that overlap by more are one object, annotated twice."""

NUM_JUDGED = 20
"""Objects of a class from which on its usual size and side ratio are known."""

_FENCE = 3.0
_LEAST_SPREAD = 0.2
_AT_EDGE_PX = 1.5


@dataclass(frozen=True)
class Objects:
    """The M objects of a data set, flat.

    Attributes:
        records: The N images.
        images: (M,) int64, the row of each object's image.
        boxes: (M, 4) float64, xyxy in pixels of the image.
        labels: (M,) int64 class indices.
        crowd: (M,) bool, set aside.
    """

    records: Sequence[ImageRecord]
    images: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> "Objects":
        """The objects of ``records``, one image after the other."""
        return cls(
            records=records,
            images=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]),
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)]).astype(np.float64),
            labels=np.concatenate([np.zeros(0, np.int64), *(r.labels for r in records)]),
            crowd=np.concatenate([np.zeros(0, np.bool_), *(r.crowd for r in records)]),
        )

    def record(self, row: int) -> ImageRecord:
        """The image of an object."""
        return self.records[int(self.images[row])]

    @property
    def sides(self) -> NDArray[np.float64]:
        """(M, 2) width and height, in pixels of the image."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def frames(self) -> NDArray[np.float64]:
        """(M, 2) width and height of each object's image."""
        frames = np.array([(record.width, record.height) for record in self.records], np.float64).reshape(-1, 2)
        return frames[self.images]


def find_tiny(objects: Objects) -> list[Problem]:
    """Tell of boxes thinner than `TINY_PX`, image by image."""
    rows = np.flatnonzero(objects.sides.min(axis=1, initial=np.inf) < TINY_PX)
    images, starts, counts = np.unique(objects.images[rows], return_index=True, return_counts=True)
    problems = []
    for image, start, count in zip(images.tolist(), starts.tolist(), counts.tolist(), strict=True):
        record, row = objects.records[image], int(rows[start])
        width, height = objects.sides[row].tolist()
        problems.append(
            Problem("warning", "tiny box", record.path, f"image {record.image_id}",
                    f"{counted(count, 'box', 'boxes')} thinner than {TINY_PX:g} px; the first is {width:.2f} x "
                    f"{height:.2f} at {tell_box(objects.boxes[row])}",
                    "kept; delete it if it is a slip of the hand",
                    Evidence(record.path, to_tuples(objects.boxes[rows[start : start + count]])))
        )  # fmt: skip
    return problems


def find_stacked(objects: Objects, names: Sequence[str]) -> list[Problem]:
    """Tell of boxes of one class that lie on each other, by more than `STACKED_IOU`."""
    pairs, overlaps = find_pairs(objects, least=STACKED_IOU)
    problems = []
    for (first, second), overlap in zip(pairs.tolist(), overlaps.tolist(), strict=True):
        record, name = objects.record(first), printable(names[int(objects.labels[first])], limit=60)
        problems.append(
            Problem("warning", "two boxes on one object", record.path, f"image {record.image_id}",
                    f"two boxes of the class {name} overlap by {overlap:.2f} (IoU): {tell_box(objects.boxes[first])} "
                    f"and {tell_box(objects.boxes[second])}",
                    "kept; delete one if it is one object: a detector gives one box, and misses the other",
                    Evidence(record.path, to_tuples(objects.boxes[[first, second]]), captions=(name, name)))
        )  # fmt: skip
    return problems


def find_pairs(objects: Objects, *, least: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(P, 2) the pairs of one image and class with an IoU above ``least``, and (P,) that IoU; crowds are left out.

    Boxes that overlap so have left edges that are near: each is compared with the next ones to its right alone.
    """
    kept = np.flatnonzero(~objects.crowd & (objects.sides > 0).all(axis=1))
    boxes, images, labels = objects.boxes[kept], objects.images[kept], objects.labels[kept]
    order = np.lexsort((boxes[:, 0], labels, images))
    boxes, images, labels = boxes[order], images[order], labels[order]
    reach = boxes[:, 0] + (1 - least) * (boxes[:, 2] - boxes[:, 0])
    rows, step = np.arange(len(boxes)), 0
    found, overlaps = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    while len(rows):
        step += 1
        rows = rows[rows + step < len(boxes)]
        others = rows + step
        is_near = (images[rows] == images[others]) & (labels[rows] == labels[others]) & (boxes[others, 0] < reach[rows])
        rows, others = rows[is_near], others[is_near]
        overlap = _paired_iou(boxes[rows], boxes[others])
        above = overlap > least
        found.append(np.sort(kept[order[np.stack([rows[above], others[above]], axis=1)]], axis=1))
        overlaps.append(overlap[above])
    pairs, overlap = np.concatenate(found), np.concatenate(overlaps)
    best_first = np.lexsort((pairs[:, 1], pairs[:, 0], -overlap))
    return pairs[best_first], overlap[best_first]


def _paired_iou(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    shared = np.clip(np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2]), 0, None)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    return shared.prod(axis=1) / (areas + other_areas - shared.prod(axis=1))


def find_odd(objects: Objects, names: Sequence[str]) -> list[Problem]:
    """Tell of objects whose size or side ratio lies far from that of their class, the farthest first.

    Size is the share of the image's side, ratio the width by the height, both as logarithms: far is beyond three times
    the spread of the middle half. Crowds are left out, objects at the image's edge, which are cut, and classes of fewer
    than `NUM_JUDGED` objects.
    """
    frames, sides = objects.frames, objects.sides
    is_inside = (objects.boxes[:, :2] > _AT_EDGE_PX).all(axis=1) & (objects.boxes[:, 2:] < frames - _AT_EDGE_PX).all(1)
    rows = np.flatnonzero(~objects.crowd & is_inside & (sides > 0).all(axis=1))
    labels, sides, frames = objects.labels[rows], sides[rows], frames[rows]
    shares, ratios = np.sqrt(sides.prod(axis=1) / frames.prod(axis=1)), sides[:, 0] / sides[:, 1]
    told = [
        ("box of unusual size", shares, _tell_share),
        ("box of unusual side ratio", ratios, _tell_ratio),
    ]
    problems = []
    for kind, values, tell in told:
        distances, middles = _find_distances(np.log(values), labels, len(names))
        for row in np.argsort(-distances, kind="stable")[: np.count_nonzero(distances > _FENCE)].tolist():
            record, box = objects.record(int(rows[row])), objects.boxes[rows[row]]
            name, (width, height) = printable(names[int(labels[row])], limit=60), sides[row].tolist()
            problems.append(
                Problem("hint", kind, record.path, f"image {record.image_id}",
                        f"{name}, {width:.4g} x {height:.4g} px at {tell_box(box)}: "
                        f"{tell(float(values[row]), float(np.exp(middles[row])))}",
                        "mend the box or the class if it is wrong",
                        Evidence(record.path, to_tuples(box[None]), captions=(name,)))
            )  # fmt: skip
    return problems


def _tell_share(value: float, median: float) -> str:
    return f"{100 * value:.3g} % of the image's side; the median of its class is {100 * median:.3g} %"


def _tell_ratio(value: float, median: float) -> str:
    return f"{value:.2g} times as wide as high; the median of its class is {median:.2g}"


def _find_distances(
    values: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) how many spreads of its class each value lies outside of the middle half, and (N,) the class's median."""
    order = np.lexsort((values, labels))
    counts = np.bincount(labels, minlength=num_classes)
    starts = np.cumsum(counts) - counts

    def at(share: float) -> NDArray[np.float64]:
        places = starts + np.rint(share * np.maximum(counts - 1, 0)).astype(np.int64)
        return values[order[np.minimum(places, len(values) - 1)]][labels] if len(values) else values

    low, middle, high = at(0.25), at(0.5), at(0.75)
    spread = np.maximum(high - low, _LEAST_SPREAD)
    distances = np.maximum(values - high, low - values) / spread
    return np.where(counts[labels] >= NUM_JUDGED, distances, -np.inf), middle


def tell_box(box: NDArray[Any]) -> str:
    """``[0, 0, 20, 1.5] (xyxy)``."""
    return f"[{', '.join(f'{value:.6g}' for value in box.tolist())}] (xyxy)"


def to_tuples(boxes: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    """Boxes (N, 4) as plain numbers."""
    return tuple(tuple(round(value, 2) for value in box) for box in boxes.tolist())
