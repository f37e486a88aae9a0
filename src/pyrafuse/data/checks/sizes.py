"""How large the objects of a data set are, class by class: the ground for advice on strides and levels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.images.fitting import compute_inner_sizes
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import printable
from pyrafuse.base.records import DetectionData

SMALL_SIDE_PX, LARGE_SIDE_PX = 32, 96
"""COCO's bounds: below the first (as the root of the area) an object is small, from the second on it is large."""

MOST_LISTED = 100
"""Classes that the table for people lists."""


@dataclass(frozen=True)
class ClassSizes:
    """Objects of one class, crowds apart.

    Attributes:
        name: Name of the class.
        num_objects: How many there are.
        small: How many have an area below 32 x 32 pixels.
        medium: Those between.
        large: Those from 96 x 96 pixels on.
        sides_px: 5th, 50th and 95th percentile of the root of the box's area, in pixels of the image; 0 without
            objects.
    """

    name: str
    num_objects: int
    small: int
    medium: int
    large: int
    sides_px: tuple[float, float, float]


def compute_sizes(splits: Sequence[DetectionData]) -> tuple[ClassSizes, ...]:
    """The sizes of the objects in all ``splits``: one row a class, and ``all`` at the end."""
    names = splits[0].names
    records = [record for data in splits for record in data.records]
    empty = [np.zeros(0, np.float32)]
    labels = np.concatenate([record.labels[~record.crowd] for record in records] or [np.zeros(0, np.int64)])
    areas = np.concatenate([record.areas[~record.crowd] for record in records] or empty)
    boxes = np.concatenate([record.boxes[~record.crowd] for record in records] or [np.zeros((0, 4), np.float32)])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))

    def describe(name: str, rows: np.ndarray) -> ClassSizes:
        small = int((areas[rows] < SMALL_SIDE_PX**2).sum())
        large = int((areas[rows] >= LARGE_SIDE_PX**2).sum())
        total = len(rows)
        low, middle, high = np.percentile(sides[rows], (5, 50, 95)).tolist() if total else (0.0, 0.0, 0.0)
        return ClassSizes(name, total, small, total - small - large, large, (low, middle, high))

    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(names)))[:-1])
    return (*map(describe, names, by_class), describe("all", np.arange(len(labels))))


def format_sizes(sizes: Sequence[ClassSizes]) -> str:
    """A table for people: a row a class, for the `MOST_LISTED` most frequent ones where there are more."""
    num_left_out = len(sizes) - 1 - MOST_LISTED
    if num_left_out > 0:
        listed = {row.name for row in sorted(sizes[:-1], key=lambda row: -row.num_objects)[:MOST_LISTED]}
        sizes = [row for row in sizes[:-1] if row.name in listed] + [sizes[-1]]
    names = [printable(row.name, limit=60) for row in sizes]
    width = max(len("class"), *map(len, names))
    lines = [f"{'class':<{width}}  objects  small  medium  large   side in pixels (5 %, half, 95 %)"]
    for name, row in zip(names, sizes, strict=True):
        low, middle, high = row.sides_px
        lines.append(
            f"{name:<{width}}  {row.num_objects:7d}  {row.small:5d}  {row.medium:6d}  {row.large:5d}"
            f"   {low:.0f}, {middle:.0f}, {high:.0f}"
        )
    if num_left_out > 0:
        lines.append(f"(and {num_left_out} classes with fewer objects)")
    return "\n".join(lines)


def find_shapes(data: DetectionData, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Width and height (N, 2) of all objects in pixels of the network's input, crowds apart."""
    sizes = np.array([(record.height, record.width) for record in data.records], np.int64).reshape(-1, 2)
    scales = (compute_inner_sizes(sizes, preprocessing) / sizes)[:, ::-1]  # along width and height
    sides = [(record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] for record in data.records]
    return np.concatenate([*sides, np.zeros((0, 2))]) * np.repeat(scales, list(map(len, sides)), axis=0)
