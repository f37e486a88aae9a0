"""Boxes on an image with captions that hide no other object: boxes -> free places -> picture."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MAX_COVERED = 0.2
"""Share of a box that captions may cover together: more would hide the object."""

_MIN_FONT_PX = 10
_MIN_LINE_PX = 2


def draw_boxes(
    image: Tensor, boxes: Tensor, names: Sequence[str], marks: Sequence[str], colors: Sequence[str]
) -> Tensor:
    """Draw boxes, and a caption at each where there is room for one; lines and letters grow with the image.

    A caption is the name and the mark, such as "penguin 0.91"; where that covers another's mark or much of a box, the
    mark alone; where that does too, none. A legend in the emptiest place names the colours of those that went without
    their name.

    Args:
        image: (3, H, W) uint8.
        boxes: (N, 4) xyxy in pixels of ``image``, the most important first: it has the first choice of a place.
        names: Name of the class of each box.
        marks: What follows the name, such as a score; "" for nothing.
        colors: Of each box, as "#rrggbb", dark enough for white letters.

    Returns:
        (3, H, W) uint8, a new image.
    """
    picture = to_pil_image(image).convert("RGB")
    draw = ImageDraw.Draw(picture)
    side = sum(picture.size) / 2
    line = max(_MIN_LINE_PX, round(side / 300))
    font = ImageFont.load_default(max(_MIN_FONT_PX, round(side / 45)))
    limits = torch.tensor([picture.width - 1, picture.height - 1] * 2)
    inside = torch.minimum(boxes.cpu().nan_to_num().round().clamp(min=0), limits).long()
    corners = inside.view(-1, 2, 2).sort(dim=1).values
    edges = corners.view(-1, 4).numpy() + line // 2 * np.asarray([-1, -1, 1, 1])
    for edge, color in zip(edges.tolist(), colors, strict=True):
        draw.rectangle(edge, outline=color, width=line)

    captions = [f"{name} {mark}".strip() for name, mark in zip(names, marks, strict=True)]
    shown = [""] * len(edges)
    spots = np.zeros_like(edges)
    hidden = np.zeros(len(edges))  # share of each box under captions
    for texts in (marks, captions):  # names only where every mark has found its place
        for row, text in enumerate(texts):
            if not text:
                continue
            former = spots[row].copy()
            hidden -= _covered(former[None], edges)[0]
            spots[row] = 0
            spot = _choose(_places_at(edges[row], *_size_of(draw, text, font)), picture.size, edges, hidden, spots)
            if spot is not None:
                shown[row] = text
            spots[row] = former if spot is None else spot
            hidden += _covered(spots[row][None], edges)[0]
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
    return pil_to_tensor(picture)


def _size_of(draw: ImageDraw.ImageDraw, text: str, font: _Font) -> tuple[int, int]:
    """Width and height of ``text`` with a margin."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    return math.ceil(right - left) + 4, math.ceil(bottom - top) + 4


def _places_at(edge: NDArray[np.int64], width: int, height: int) -> NDArray[np.int64]:
    """(P, 4) xyxy of a caption at a box, the preferred first: above, below, inside, at the sides."""
    x1, y1, x2, y2 = edge
    above, below, left, right, aligned = y1 - height, y2 + 1, x1 - width, x2 + 1, x2 + 1 - width
    places = [
        (x1, above), (aligned, above), (x1, below), (aligned, below), (x1, y1), (aligned, y1), (right, y1), (left, y1),
        (right, below - height), (left, below - height),
    ]  # fmt: skip
    return np.hstack([places, np.add(places, (width, height))])


def _choose(
    places: NDArray[np.int64],
    limits: tuple[int, int],
    boxes: NDArray[np.int64],
    hidden: NDArray[np.float64],
    taken: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """The place, moved into the image, that leaves boxes most visible and ``taken`` free; None if none is good.

    ``hidden`` is the share of each box that other captions cover.
    """
    beyond = np.maximum(places[:, 2:] - limits, 0) + np.minimum(places[:, :2], 0)
    places = places - np.tile(beyond, 2)
    low, high = places[:, :2].min(axis=0), places[:, 2:].max(axis=0)
    if (low < 0).any():
        return None  # larger than the image
    near, near_taken = (((b[:, :2] < high) & (b[:, 2:] > low)).all(axis=1) for b in (boxes, taken))
    covered = _covered(places, boxes[near])
    costs = np.where(covered > 0, covered + hidden[near], 0).max(axis=1, initial=0) + 0.01 * np.arange(len(places))
    costs[_covered(places, taken[near_taken]).any(axis=1)] = np.inf
    best = int(costs.argmin())
    return places[best] if costs[best] < _MAX_COVERED else None


def _covered(spots: NDArray[np.number], boxes: NDArray[np.number]) -> NDArray[np.float64]:
    """(P, N) share of each box that each spot covers."""
    low = np.maximum(spots[:, None, :2], boxes[None, :, :2])
    high = np.minimum(spots[:, None, 2:], boxes[None, :, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return (high - low).clip(0).prod(axis=2) / np.maximum(areas, 1)


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
    left, top, right, _ = spots[int(_covered(spots, occupied).sum(axis=1).argmin())].tolist()
    for name, color in colors.items():
        _write(draw, np.asarray([left + row, top, right, top + row]), name, font, "black")
        draw.rectangle((left, top, left + row - 1, top + row - 1), fill=color, outline="black", width=2)
        top += row
