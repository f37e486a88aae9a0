"""Which views of an image a detector is given: tiles that overlap, flipped copies, other scales.

size of an image -> views -> parts of the image; boxes of a part -> boxes of the image
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import PyrafuseError, check_between, check_count

Merge = Literal["nms", "wbf"]

SMALLEST_TILE, MOST_OVERLAP = 32, 0.9
SCALES = (0.75, 1.25)
"""What ``scales`` stands for, beside 1."""

LEAST_SCALE, MOST_SCALE = 0.25, 4.0


@dataclass(frozen=True)
class View:
    """A part of an image that is detected in by itself.

    Attributes:
        box: Left, top, right and bottom edge in pixels of the image.
        flipped: Whether left and right are exchanged.
        scale: Times the size of the network's input.
    """

    box: tuple[int, int, int, int]
    flipped: bool = False
    scale: float = 1.0

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This part of ``image`` (H, W, 3)."""
        left, top, right, bottom = self.box
        part = image[top:bottom, left:right]
        return np.ascontiguousarray(part[:, ::-1]) if self.flipped else part

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) xyxy in pixels of this part, in pixels of the image."""
        left, top, right, _ = self.box
        if self.flipped:
            boxes = np.stack([right - left - boxes[:, 2], boxes[:, 1], right - left - boxes[:, 0], boxes[:, 3]], axis=1)
        return boxes + np.array([left, top, left, top], np.float32)


@dataclass(frozen=True)
class Views:
    """Which views of each image there are, and how what they find is put together.

    Attributes:
        tile: Side of a tile in pixels of the image; None takes whole images.
        overlap: Least share of a tile's side that it has in common with the next one.
        whole: Whether the whole image is a view beside its tiles.
        flip: Whether each view comes flipped as well.
        scales: Times the size of the network's input; each view comes at each scale.
        merge: ``nms`` keeps the best of the boxes that overlap; ``wbf`` takes their weighted mean.

    Raises:
        PyrafuseError: If a number is out of its range, or there are no tiles beside which the image is whole.
    """

    tile: int | None = None
    overlap: float = 0.2
    whole: bool = False
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    merge: Merge = "nms"

    def __post_init__(self) -> None:
        if self.tile is not None:
            check_count("tile", self.tile, SMALLEST_TILE)
        check_between("overlap", self.overlap, 0, MOST_OVERLAP)
        for scale in self.scales:
            check_between("a scale of augment", scale, LEAST_SCALE, MOST_SCALE)
        if self.whole and self.tile is None:
            raise PyrafuseError("augment whole takes the whole image beside its tiles: give a tile, or leave whole out")
        if self.merge not in ("nms", "wbf"):
            raise PyrafuseError(f"merge must be nms or wbf, got {self.merge!r}")

    @property
    def is_single(self) -> bool:
        """Whether each image has one view, the image itself."""
        return self.tile is None and not self.flip and self.scales == (1.0,)

    def of(self, height: int, width: int) -> tuple[View, ...]:
        """The views of an image; the first one is neither flipped nor scaled."""
        parts = [(0, 0, width, height)]
        if self.tile is not None and (height > self.tile or width > self.tile):
            tiles = list(cut_tiles(height, width, tile=self.tile, overlap=self.overlap))
            parts = [*tiles, *parts] if self.whole else tiles
        flips = (False, True) if self.flip else (False,)
        return tuple(View(part, flip, scale) for scale, flip, part in product(self.scales, flips, parts))


def read_views(
    *, tile: int | None = None, overlap: float | None = None, augment: Sequence[str] = (), merge: Merge | None = None
) -> Views:
    """The views that options ask for; what is None is left to `Views`.

    Args:
        tile: Side of a tile in pixels; 0 keeps images whole, as None does.
        overlap: Least share of a tile's side that it has in common with the next one.
        augment: ``flip``, ``scales``, ``whole`` and numbers, which are scales.
        merge: ``nms`` or ``wbf``.

    Raises:
        PyrafuseError: If there is no such word, an option would change nothing, and as `Views`.
    """
    if overlap is not None and not tile:
        raise PyrafuseError(
            f"overlap {overlap:g} is for tiles, and images stay whole: give a tile, or leave overlap out"
        )
    if merge is not None and not tile and not augment:
        raise PyrafuseError(
            f"merge {merge} puts together what several views find, and each image is one: give a tile or augment, or "
            "leave merge out"
        )
    scales = [1.0]
    words = {augment} if isinstance(augment, str) else {*augment}
    for word in sorted(words - {"flip", "whole"}):
        scales += SCALES if word == "scales" else [_read_scale(word)]
    given = {"overlap": overlap, "merge": merge}
    return Views(
        tile=tile or None,
        whole="whole" in words,
        flip="flip" in words,
        scales=tuple(dict.fromkeys(scales)),
        **{name: value for name, value in given.items() if value is not None},
    )


def cut_tiles(height: int, width: int, *, tile: int, overlap: float) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each tile of an image, row by row.

    All tiles lie in the image, and have a side of ``tile`` where the image has it. They are spread evenly, so that
    neighbours share ``overlap`` of a side or more.
    """
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield left, top, min(left + tile, width), min(top + tile, height)


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    room = max(0, length - tile)
    step = max(1, math.floor(tile * (1 - overlap)))
    steps = -(-room // step)
    return [round(room * i / max(1, steps)) for i in range(steps + 1)]


def _read_scale(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise PyrafuseError(
            f"augment has flip, scales, whole and numbers from {LEAST_SCALE:g} to {MOST_SCALE:g}; got {word!r}"
        ) from None
