"""Boxes that are there twice: the same object annotated again, or one box in two classes."""

import numpy as np
from numpy.typing import NDArray

SAME_PX = 0.5
"""Boxes whose sides are all nearer than this are one box: tools round differently."""

_MIX = np.array([1.0, 1.37, 0.71, 0.53])
"""Weights of a box's sides in the number that boxes are sorted by: rows and columns of a grid do not meet in it."""

_MOST_STEPS = 256


def find_repeats(
    rows: NDArray[np.int64], boxes: NDArray[np.float32], labels: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Copies, and boxes of two classes.

    Args:
        rows: (M,) the image of each object.
        boxes: (M, 4) xyxy in pixels.
        labels: (M,) the class of each.
        crowd: (M,) whether it is a crowd; a crowd is no copy of an object.

    Returns:
        (C, 2) a copy and the earlier object of its class that it repeats, each copy once; (D, 2) an object and an
        earlier one with its box and another class, copies apart. Both in ascending order.
    """
    kinds = labels * 2 + crowd
    copies = _pairs(rows, boxes, kinds, is_alike=True)
    is_copy = np.zeros(len(rows), bool)
    is_copy[copies[:, 0]] = True
    kept = np.flatnonzero(~is_copy)
    return copies, kept[_pairs(rows[kept], boxes[kept], labels[kept], is_alike=False)]


def _pairs(
    rows: NDArray[np.int64], boxes: NDArray[np.float32], kinds: NDArray[np.int64], *, is_alike: bool
) -> NDArray[np.int64]:
    """(P, 2) each object that lies where an earlier one of its image does, and the first such one.

    Sorted by image and a mix of the four sides, objects that lie on one another are near neighbours: each is compared
    with the next, then with the one after it, until no two are near enough in the mix alone.
    """
    places = boxes @ _MIX
    order = np.lexsort((places, kinds, rows) if is_alike else (places, rows))
    boxes, places, rows, kinds = boxes[order], places[order], rows[order], kinds[order]
    earliest = order.copy()  # the first object, by its place in the file, on which each one lies
    open_rows = np.arange(len(order))
    for step in range(1, _MOST_STEPS):
        open_rows = open_rows[open_rows + step < len(order)]
        other = open_rows + step
        near = (rows[other] == rows[open_rows]) & (places[other] - places[open_rows] < SAME_PX * _MIX.sum())
        if is_alike:
            near &= kinds[other] == kinds[open_rows]
        open_rows, other = open_rows[near], other[near]
        if not len(open_rows):
            break
        same = (np.abs(boxes[other] - boxes[open_rows]) < SAME_PX).all(1)
        if not is_alike:
            same &= kinds[other] != kinds[open_rows]
        here, there = open_rows[same], other[same]
        earlier = np.minimum(order[here], order[there])
        np.minimum.at(earliest, here, earlier)
        np.minimum.at(earliest, there, earlier)
    is_repeat = earliest < order
    pairs = np.stack([order[is_repeat], earliest[is_repeat]], axis=1)
    return pairs[np.argsort(pairs[:, 0])]
