"""Upright boxes of what is no upright box: rotated rectangles, outlines and masks."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
NO_BOX: Box = (np.nan, np.nan, np.nan, np.nan)


def hull_of_rotated(boxes: NDArray[np.float64], radians: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upright boxes around (M, 4) xyxy boxes that are rotated about their centres; to which side is the same."""
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    cos, sin = np.abs(np.cos(radians)), np.abs(np.sin(radians))
    around = np.stack([half[:, 0] * cos + half[:, 1] * sin, half[:, 0] * sin + half[:, 1] * cos], axis=1)
    return np.concatenate([center - around, center + around], axis=1)


def are_radians(angles: NDArray[np.float64]) -> bool:
    """Whether angles without a unit are radians: none is more than a full turn, and not all are whole numbers."""
    known = angles[np.isfinite(angles)]
    return bool(len(known) and np.abs(known).max() <= 2 * np.pi + 1e-3 and (known % 1).any())


def are_scores(values: NDArray[np.float64]) -> bool:
    """Whether the numbers after the boxes can be scores: all lie in 0..1, and not all are 0."""
    known = values[np.isfinite(values)]
    return bool(len(known) and known.min() >= 0 and known.max() <= 1 and known.any())


def box_of_points(values: Sequence[float]) -> Box:
    """The box around an outline: x and y in turn; `NO_BOX` for what is none."""
    if len(values) < 6 or len(values) % 2:
        return NO_BOX
    try:
        xs, ys = values[0::2], values[1::2]
        return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))
    except (TypeError, ValueError, OverflowError):
        return NO_BOX


def box_of_segmentation(segmentation: Any) -> Box:
    """The xyxy box of a COCO ``segmentation``: polygons, or a mask in run lengths, compressed or not; else `NO_BOX`.

    A polygon is a list of numbers, x and y in turn, or of points with two each.
    """
    if isinstance(segmentation, dict):
        return _box_of_mask(segmentation.get("counts"), segmentation.get("size"))
    if not isinstance(segmentation, list) or not segmentation:
        return NO_BOX
    is_single = not isinstance(segmentation[0], list) or _are_points(segmentation)
    parts = [segmentation] if is_single else segmentation
    parts = [list(chain.from_iterable(part)) if _are_points(part) else part for part in parts]
    boxes = [box_of_points(part) for part in parts if isinstance(part, list) and _are_numbers(part)]
    boxes = [box for box in boxes if box[0] == box[0]]
    if not boxes:
        return NO_BOX
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def is_tilted(segmentation: Any) -> bool:
    """Whether ``segmentation`` is one polygon that is no upright rectangle."""
    if not isinstance(segmentation, list) or len(segmentation) != 1 or not isinstance(segmentation[0], list):
        return False
    points = segmentation[0]
    if len(points) < 6 or len(points) % 2 or not _are_numbers(points):
        return False
    return len({round(x, 1) for x in points[0::2]}) > 2 or len({round(y, 1) for y in points[1::2]}) > 2


def _are_points(values: Any) -> bool:
    """Whether ``values`` are three points or more, each a list of x and y."""
    is_list = isinstance(values, list) and len(values) >= 3
    return is_list and all(isinstance(point, list) and len(point) == 2 and _are_numbers(point) for point in values)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _box_of_mask(counts: Any, size: Any) -> Box:
    """The box of the ones of a mask, whose runs go down the columns and begin with zeros."""
    if isinstance(counts, str):
        counts = _decode_counts(counts)
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        return NO_BOX
    if not all(isinstance(value, int) and value >= 0 for value in chain(counts, size)):
        return NO_BOX
    height, width = size
    if not 0 < height * width < 2**53 or sum(counts) > height * width:
        return NO_BOX
    ends = np.cumsum(np.array(counts, np.int64))
    starts, ends = ends[0:-1:2], ends[1::2]  # of the ones
    starts, ends = starts[ends > starts], ends[ends > starts]
    if not len(starts):
        return NO_BOX
    first, last = starts // height, (ends - 1) // height
    is_column = first == last  # a run over a column's end reaches from the top to the bottom
    top = np.where(is_column, starts % height, 0).min()
    bottom = np.where(is_column, (ends - 1) % height + 1, height).max()
    return float(first.min()), float(top), float(last.max() + 1), float(bottom)


def _decode_counts(text: str) -> list[int] | None:
    """COCO's compressed run lengths: six bits a letter, lowest first, from the third run on as a difference."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:  # the number is negative
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts
