"""Which boxes can be trained on: numbers of a file -> xyxy pixels of upright images, and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.data.reading.hulls import hull_of_rotated
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem
from pyrafuse.data.reading.repeats import find_repeats
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, ObjectTable
from pyrafuse.data.reading.units import choose_format, suspect, to_pixels

TOLERANCE_PX = 1.0
"""A box that reaches this far beyond its image is clipped silently: annotations are rounded."""

_UPRIGHT = 1e-6


@dataclass(frozen=True)
class PlacedBoxes:
    """The boxes of an `ObjectTable` in pixels of their images as annotated.

    Attributes:
        boxes: (M, 4) float64 xyxy.
        is_rotated: (M,) those that are the hull of a rotated box.
        has_own_areas: Whether the annotations' own areas are in pixels.
    """

    boxes: NDArray[np.float64]
    is_rotated: NDArray[np.bool_]
    has_own_areas: bool


def place_boxes(
    images: Sequence[ListedImage],
    objects: ObjectTable,
    sizes: NDArray[np.int64],
    is_known: NDArray[np.bool_],
    rules: ReadingRules,
) -> PlacedBoxes:
    """Bring boxes from what a file holds to pixels, rotated ones to the upright box around them.

    Args:
        images: What is listed.
        objects: What is in them.
        sizes: (M, 2) width and height, of the image as it was annotated, for each object.
        is_known: (M,) objects whose image is there.
        rules: What the numbers are said to be.

    Raises:
        DataError: If the boxes as a whole look like something else than they are taken for.
    """
    words = rules.box_words
    form = choose_format(objects.written, words)
    count = len(objects.boxes)
    is_hull = np.zeros(count, bool) if objects.sources is None else objects.sources != BOX
    found = suspect(objects.boxes[is_known], form, sizes[is_known], is_hull[is_known], words)
    if found is not None:
        row = int(np.flatnonzero(is_known)[0])
        place = f"{images[objects.rows[row]].file}, {_place(images, objects, row)}"
        say = ",".join(dict.fromkeys((*_kept_words(words, found.words), found.words)))
        own = ",".join(dict.fromkeys((*_kept_words(words, found.own_words), found.own_words)))
        raise DataError(
            f"{place}: box [{_numbers(objects.boxes[row])}] in an image of {sizes[row, 0]} x {sizes[row, 1]}; "
            f"{found.evidence}. --boxes {say} reads them so; --boxes {own} if they are {found.own_words}"
        )
    boxes = to_pixels(objects.boxes, form, sizes, is_hull)
    is_rotated = np.zeros(count, bool)
    if objects.angles is not None:
        angles = np.where(np.isfinite(objects.angles), objects.angles, np.nan)
        is_rotated = ~(np.abs(np.sin(angles)) < _UPRIGHT)
        boxes[is_rotated] = hull_of_rotated(boxes[is_rotated], angles[is_rotated])
    return PlacedBoxes(boxes, is_rotated, form.unit == "pixels")


def judge_boxes(
    boxes: NDArray[np.float32],
    sizes: NDArray[np.int64],
    is_known: NDArray[np.bool_],
    images: Sequence[ListedImage],
    objects: ObjectTable,
    is_rotated: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Which boxes can be trained on, and what is wrong with the others.

    Args:
        boxes: (M, 4) xyxy in pixels of the upright images.
        sizes: (M, 2) width and height of these.
        is_known: (M,) objects whose image is there; of the others nothing is said.
        images: What is listed.
        objects: What is in them.
        is_rotated: (M,) hulls of rotated boxes, which may well reach beyond the image.
    """
    is_open = is_known.copy()  # neither condemned nor passed yet
    problems: list[Problem] = []

    def tell(wrong: Any, severity: Literal["error", "warning"], kind: str, remedy: str) -> None:
        for row in np.flatnonzero(wrong & is_open):
            message = f"box [{_numbers(boxes[row])}] (xyxy) in an image of {sizes[row, 0]} x {sizes[row, 1]}"
            problems.append(_problem(severity, kind, images, objects, int(row), message, remedy))

    def drop(wrong: Any, severity: Literal["error", "warning"], kind: str, remedy: str) -> None:
        tell(wrong, severity, kind, remedy)
        is_open[wrong] = False

    x1, y1, x2, y2 = boxes.T
    width, height = sizes.T
    drop(~np.isfinite(boxes).all(1), "error", "box that is no number",
         "left out; give the object four numbers or an outline")  # fmt: skip
    drop((x2 < x1) | (y2 < y1), "error", "inverted box", "left out; exchange its corners, its size must be positive")
    drop((x2 == x1) | (y2 == y1), "warning", "box without size", "left out; delete it")
    is_share = objects.written.unit == "shares"
    pixels = "; are these pixels? YOLO's values are shares, 0 to 1" if is_share else ""
    drop(
        (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0),
        "error",
        "box outside its image",
        f"left out; annotate the object anew{pixels}",
    )
    beyond = np.maximum(np.maximum(-x1, x2 - width), np.maximum(-y1, y2 - height))
    tell((beyond > TOLERANCE_PX) & ~is_rotated, "warning", "box partly outside its image", "clipped to the image")
    return is_open, problems


def tell_hulls(
    images: Sequence[ListedImage], objects: ObjectTable, sound: NDArray[np.int64], is_rotated: NDArray[np.bool_]
) -> list[Problem]:
    """What was done to rotated boxes and outlines, a note for each."""
    problems = []
    rotated = sound[is_rotated[sound]]
    if len(rotated) and objects.angles is not None:
        degrees = np.rad2deg(objects.angles[rotated[0]])
        problems.append(
            _problem(
                "note", "rotated boxes", images, objects, int(rotated[0]),
                f"{len(rotated)} of {len(sound)} boxes are rotated (angles taken as {objects.angle_unit}), this one by "
                f"{degrees:.4g} degrees", "the upright box around each one is taken",
            )
        )  # fmt: skip
    outlines = sound[objects.sources[sound] == OUTLINE] if objects.sources is not None else sound[:0]
    if len(outlines):
        problems.append(
            _problem(
                "note", "outlines", images, objects, int(outlines[0]),
                f"{len(outlines)} of {len(sound)} objects are taken by their outline, this one first",
                "the box around each outline is taken",
            )
        )  # fmt: skip
    return problems


def drop_repeats(
    boxes: NDArray[np.float32],
    sound: NDArray[np.int64],
    rows: NDArray[np.int64],
    images: Sequence[ListedImage],
    objects: ObjectTable,
) -> tuple[NDArray[np.int64], list[Problem]]:
    """The objects of ``sound`` without copies of earlier ones, and a warning for each copy and box of two classes.

    Args:
        boxes: (M, 4) xyxy in pixels, clipped.
        sound: The objects that can be used.
        rows: (M,) the image of each object.
        images: What is listed.
        objects: What is in them.
    """
    copies, doubles = find_repeats(rows[sound], boxes[sound], objects.labels[sound], objects.crowd[sound])
    problems = []
    for (row, other), kind, remedy in (
        *((pair, "object annotated twice", "left out; delete the copy") for pair in sound[copies]),
        *((pair, "one box in two classes", "both are kept; delete the wrong one") for pair in sound[doubles]),
    ):
        message = f"box [{_numbers(boxes[row])}] (xyxy) is that of {objects.record_of(int(other))} too"
        problems.append(_problem("warning", kind, images, objects, int(row), message, remedy))
    return np.delete(sound, copies[:, 0]), problems


def _problem(
    severity: Literal["error", "warning", "note"],
    kind: str,
    images: Sequence[ListedImage],
    objects: ObjectTable,
    row: int,
    message: str,
    remedy: str,
) -> Problem:
    file: Path = images[objects.rows[row]].file
    return Problem(severity, kind, file, _place(images, objects, row), message, remedy)


def _place(images: Sequence[ListedImage], objects: ObjectTable, row: int) -> str:
    return f"{objects.record_of(row)} of {images[objects.rows[row]].path.name}"


def _numbers(box: NDArray[Any]) -> str:
    return ", ".join(f"{value:.6g}" for value in box.tolist())


def _kept_words(words: tuple[str, ...], new: str) -> list[str]:
    """The words that were given and that ``new`` does not replace."""
    from_new = new.split(",")
    return [word for word in words if word not in from_new]
