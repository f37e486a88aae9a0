"""Objects as annotations list them, before they are looked at: what every reader hands to `assemble`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.data.reading.rules import BoxFormat

PIXEL_CORNERS = BoxFormat("pixels", "corners")

BOX, OUTLINE, ROTATED = 0, 1, 2
"""Where an object's four numbers come from: a box; the box of an outline; a rotated box with a notation of its own."""


@dataclass(frozen=True)
class ObjectTable:
    """The M objects of a split, one row each.

    Attributes:
        rows: (M,) int64, the rank of each one's image.
        boxes: (M, 4) float64, as they stand in the file; see ``written``.
        labels: (M,) int64, 0..K-1.
        crowd: (M,) bool.
        areas: (M,) float64, pixels; NaN where the annotations do not say.
        record_of: Names the place of a row: ``annotation 17``, ``line 3``.
        written: What the four numbers of a `BOX` are in this layout. Those of the other sources are 0-based corners.
        sources: (M,) `BOX`, `OUTLINE` or `ROTATED`; all are boxes where it is None.
        angles: (M,) radians by which each box is rotated about its centre; none is where it is None.
        angle_unit: What the angles were taken for.
    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    record_of: Callable[[int], str]
    written: BoxFormat = PIXEL_CORNERS
    sources: NDArray[np.int8] | None = None
    angles: NDArray[np.float64] | None = None
    angle_unit: str = "degrees"


def is_set(value: Any) -> bool:
    """Whether a flag such as ``iscrowd`` or ``difficult`` is set: a number but 0 and NaN, or a text that says so."""
    if isinstance(value, str):
        text = value.strip().casefold()
        if text in {"true", "yes"}:
            return True
        try:
            value = float(text)
        except ValueError:
            return False
    return isinstance(value, int | float) and value == value and value != 0
