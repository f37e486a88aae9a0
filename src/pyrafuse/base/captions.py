"""Boxes on an image with captions that hide no other object: boxes -> free places -> picture."""

import math
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from pyrafuse.base.arrays import Array, to_numpy
from pyrafuse.base.pictures import like_image, to_pillow

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MAX_COVERED = 0.2
"""Share of a box that captions may cover together: more would hide the object."""

_MIN_FONT_PX = 10
_MIN_LINE_PX = 2


def draw_boxes(image: Array, boxes: Array, names: Sequence[str], marks: Sequence[str], colors: Sequence[str]) -> Array:
    """Draw boxes, and a caption at each where there is room for one; lines and letters grow with the image.

    A caption is the name and the mark, such as "penguin 0.91"; where that covers another's mark or much of a box, the
    mark alone; where that does too, none. A legend in the emptiest place names the colours of those that went without
    their name.

    Args:
        image: (3, H, W) uint8.
        boxes: (N, 4) xyxy in pixels of ``image``, the most important first: it has the first choice of a place.
        names: Name of the class of each box.
        marks: What follows the name, such as a score; "" for nothing.
        colors: Color of each box, as "#rrggbb", dark enough for white letters.

    Returns:
        (3, H, W) uint8, a new image of the kind of ``image``, in main memory.
    """
    picture = to_pillow(image)
    draw = ImageDraw.Draw(picture)
    side = sum(picture.size) / 2
    line = max(_MIN_LINE_PX, round(side / 300))
    font = ImageFont.load_default(max(_MIN_FONT_PX, round(side / 45)))
    limits = np.asarray([picture.width - 1, picture.height - 1] * 2)
    inside = np.clip(np.rint(np.nan_to_num(to_numpy(boxes))), 0, limits).astype(np.int64)
    edges = np.sort(inside.reshape(-1, 2, 2), axis=1).reshape(-1, 4) + line // 2 * np.asarray([-1, -1, 1, 1])
    rim = max(1, round(line / 3))  # lines have white edges: dark colours are lost on dark pictures
    for x1, y1, x2, y2 in edges.tolist():
        draw.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline="white", width=line + 2 * rim)
    for edge, color in zip(edges.tolist(), colors, strict=True):
        draw.rectangle(edge, outline=color, width=line)

    captions = [f"{name} {mark}".strip() for name, mark in zip(names, marks, strict=True)]
    size_of = cache(partial(_size_of, draw, font=font))
    of_marks = place_captions(edges, [size_of(mark) for mark in marks], picture.size)
    # names only where every mark has found its place, and not where the mark alone found none
    sizes = [
        size_of(caption if any(spot) or not mark else "")
        for caption, mark, spot in zip(captions, marks, of_marks.tolist(), strict=True)
    ]
    spots = place_captions(edges, sizes, picture.size, former=of_marks)
    shown = [
        caption if spot != former else mark if any(spot) else ""
        for caption, mark, spot, former in zip(captions, marks, spots.tolist(), of_marks.tolist(), strict=True)
    ]
    for spot, text, color in zip(spots, shown, colors, strict=True):
        if text:
            _write(draw, spot, text, font, color)
    unnamed = {
        name: color
        for name, color, text, caption in zip(names, colors, shown, captions, strict=True)
        if text != caption and name
    }
    if unnamed:
        _draw_legend(draw, unnamed, font, picture.size, np.vstack([edges, spots]))
    return like_image(image, picture)


def place_captions(
    boxes: NDArray[np.int64],
    sizes: Sequence[tuple[int, int]],
    limits: tuple[int, int],
    *,
    former: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Give each caption a place at its box, apart from all other captions, where it hides little of any box.

    Args:
        boxes: (N, 4) xyxy in pixels, the most important first: it has the first choice.
        sizes: Width and height of each caption in pixels; (0, 0) for none.
        limits: Width and height of the image in pixels.
        former: (N, 4), captions that have their places; one is kept where its box has no place for the new one.

    Returns:
        (N, 4) xyxy of each caption; zeros where there is none.
    """
    # coordinates first, (4, N), each in one piece: a thousand boxes are a few calls on long arrays
    corners = boxes.T.astype(np.float64, order="C")
    taken = np.zeros_like(corners) if former is None else former.T.astype(np.float64, order="C")
    hidden = np.zeros(len(boxes))  # share of each box under captions
    for row in np.flatnonzero(taken.any(axis=0)).tolist():
        hidden += _covered(taken[:, row, None], corners)[0]
    places, is_fitting = _places_at(corners, np.asarray(sizes, np.float64).reshape(-1, 2).T, limits)
    low, high = places[:2].min(axis=2), places[2:].max(axis=2)
    for row in np.flatnonzero(is_fitting).tolist():
        before = taken[:, row].copy()
        if before.any():
            hidden -= _covered(before[:, None], corners)[0]
            taken[:, row] = 0
        near, near_taken = (_find_near(b, low[:, row, None], high[:, row, None]) for b in (corners, taken))
        best = _choose(places[:, row], corners[:, near], hidden[near], taken[:, near_taken])
        taken[:, row] = before if best is None else places[:, row, best]
        if taken[:, row].any():
            hidden += _covered(taken[:, row, None], corners)[0]
    return taken.T.astype(np.int64)


def _size_of(draw: ImageDraw.ImageDraw, text: str, font: _Font) -> tuple[int, int]:
    """Width and height of ``text`` with a margin; of none, zeros."""
    if not text:
        return 0, 0
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    return math.ceil(right - left) + 4, math.ceil(bottom - top) + 4


def _places_at(
    boxes: NDArray[np.float64], sizes: NDArray[np.float64], limits: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(4, N, P) xyxy of a caption of ``sizes`` (2, N) at each box (4, N), moved into the image; whether it has room.

    The preferred come first: above, below, inside, at the sides.
    """
    x1, y1, x2, y2 = boxes
    width, height = sizes
    above, below, left, right, aligned = y1 - height, y2 + 1, x1 - width, x2 + 1, x2 + 1 - width
    x = np.stack([x1, aligned, x1, aligned, x1, aligned, right, left, right, left], axis=1)
    y = np.stack([above, above, below, below, y1, y1, y1, y1, below - height, below - height], axis=1)
    low, size = np.stack([x, y]), sizes[:, :, None]
    room = np.asarray(limits, np.float64)[:, None, None] - size
    low = np.clip(low, 0, np.maximum(room, 0))
    is_fitting = np.logical_and.reduce([*(sizes > 0), *(room[:, :, 0] >= 0)])
    return np.concatenate([low, low + size]), is_fitting


def _choose(
    places: NDArray[np.float64], boxes: NDArray[np.float64], hidden: NDArray[np.float64], taken: NDArray[np.float64]
) -> int | None:
    """Which of ``places`` (4, P) leaves boxes (4, N) most visible and ``taken`` (4, N) free; None if none is good.

    ``hidden`` is the share of each box that other captions cover.
    """
    free = np.flatnonzero(~_overlaps(places, taken).any(axis=1))
    if not len(free):
        return None
    covered = _covered(places[:, free], boxes)
    costs = np.where(covered > 0, covered + hidden, 0).max(axis=1, initial=0) + 0.01 * free
    best = int(costs.argmin())
    return int(free[best]) if costs[best] < _MAX_COVERED else None


def _find_near(boxes: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of ``boxes`` (4, N) reach into the rectangle between ``low`` and ``high`` (2, 1)."""
    across, down = (boxes[:2] < high) & (boxes[2:] > low)
    return np.flatnonzero(across & down)


def _overlaps(spots: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(P, N) which of ``spots`` (4, P) and ``boxes`` (4, N) share pixels."""
    spots, boxes = spots[:, :, None], boxes[:, None]
    across, down = np.minimum(spots[2:], boxes[2:]) > np.maximum(spots[:2], boxes[:2])
    return across & down


def _covered(spots: NDArray[np.number], boxes: NDArray[np.number]) -> NDArray[np.float64]:
    """(P, N) share of each of ``boxes`` (4, N) that each of ``spots`` (4, P) covers."""
    spots, boxes = spots[:, :, None], boxes[:, None]
    width, height = np.maximum(np.minimum(spots[2:], boxes[2:]) - np.maximum(spots[:2], boxes[:2]), 0)
    across, down = boxes[2:] - boxes[:2]
    return width * height / np.maximum(across * down, 1)


def _write(draw: ImageDraw.ImageDraw, spot: NDArray[np.int64], text: str, font: _Font, color: str) -> None:
    """``text`` in white at the left of ``spot`` (xyxy), which is filled with ``color``."""
    x1, y1, x2, y2 = spot.tolist()
    left, top, *_ = draw.textbbox((0, 0), text, font=font)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
    draw.text((x1 + 2 - left, y1 + 2 - top), text, fill="white", font=font)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    colors: dict[str, str],
    font: _Font,
    limits: tuple[int, int],
    occupied: NDArray[np.int64],
) -> None:
    """A black panel, a row a name behind its colour, where it covers least."""
    sizes = np.stack([_size_of(draw, name, font) for name in colors])
    row = int(sizes[:, 1].max()) + 2
    size = np.asarray([row + sizes[:, 0].max(), row * len(sizes)])
    x, y = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
    places = (np.stack([x.ravel(), y.ravel()], axis=1) * np.maximum(np.asarray(limits) - size, 0)).astype(np.int64)
    spots = np.hstack([places, places + size])
    left, top, right, _ = spots[int(_covered(spots.T, occupied.T).sum(axis=1).argmin())].tolist()
    for name, color in colors.items():
        _write(draw, np.asarray([left + row, top, right, top + row]), name, font, "black")
        draw.rectangle((left, top, left + row - 1, top + row - 1), fill=color, outline="black", width=2)
        top += row
