"""Boxes as the numbers of a file: xyxy pixels -> the shortest decimals that are read as the same boxes."""

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.rules import BoxFormat
from pyrafuse.data.reading.units import from_pixels, to_pixels

_MOST_DECIMALS = 16


def encode_boxes(boxes: NDArray[np.float32], form: BoxFormat, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(M, 4) numbers that `to_pixels` turns into ``boxes`` again, of the fewest decimals with which it does.

    Args:
        boxes: (M, 4) xyxy in pixels.
        form: What the numbers are to be.
        sizes: (M, 2) width and height of each one's image.
    """
    exact = from_pixels(boxes.astype(np.float64), form, sizes)
    numbers, pending = exact.copy(), np.arange(len(exact))
    for decimals in range(_MOST_DECIMALS + 1):
        rounded = np.round(exact[pending], decimals)
        read = to_pixels(rounded, form, sizes[pending], np.zeros(len(pending), bool))
        is_same = (read.astype(np.float32) == boxes[pending]).all(axis=1)
        numbers[pending[is_same]] = rounded[is_same]
        pending = pending[~is_same]
        if not len(pending):
            break
    return numbers


def encode_split(data: DetectionData, form: BoxFormat) -> list[list[list[float]]]:
    """The numbers of each box of each image; whole ones are whole."""
    records = data.records
    counts = [len(record.labels) for record in records]
    if not sum(counts):
        return [[] for _ in records]
    sizes = np.repeat(np.array([(record.width, record.height) for record in records], np.int64), counts, axis=0)
    numbers = encode_boxes(np.concatenate([record.boxes for record in records]), form, sizes).tolist()
    plain: list[list[float]] = [[int(value) if value == int(value) else value for value in box] for box in numbers]
    ends = np.cumsum(counts).tolist()
    return [plain[end - count : end] for count, end in zip(counts, ends, strict=True)]


def spell_number(value: float) -> str:
    """A number without an exponent, as every tool reads it."""
    return np.format_float_positional(value, trim="-")


def whole_pixels(data: DetectionData) -> list[NDArray[np.int64]]:
    """(G, 4) xyxy of each image in whole pixels, each box one wide and one high at least and inside its image."""
    rounded = []
    for record in data.records:
        sides = np.array([record.width, record.height])
        low = np.minimum(np.round(record.boxes[:, :2]).astype(np.int64), sides - 1)
        high = np.minimum(np.maximum(np.round(record.boxes[:, 2:]).astype(np.int64), low + 1), sides)
        rounded.append(np.concatenate([low, high], axis=1))
    return rounded
