"""From objects as they were written down to records that can be trained on: listed images + objects -> records.

Whatever is wrong with a box or an image is told in a `Problem`, and the box or image is mended or left out.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pyrafuse.core.errors import DataError
from pyrafuse.core.records import ImageRecord
from pyrafuse.data.images import ImageHeader, read_headers
from pyrafuse.data.listed import ListedImage, tell_found, tell_missing
from pyrafuse.data.options import DEFAULT_OPTIONS, ReadOptions
from pyrafuse.data.problems import Problem

TOLERANCE_PX = 1.0
"""A box that reaches this far beyond its image is clipped without a word: annotations are rounded."""


@dataclass(frozen=True)
class ObjectTable:
    """The M objects of a split, one row each.

    Attributes:
        rows: (M,) int64, the rank of each one's image.
        boxes: (M, 4) float64, xyxy; in pixels, or as a share of the image.
        labels: (M,) int64, 0..K-1.
        crowd: (M,) bool.
        areas: (M,) float64, pixels; NaN where the annotations do not say.
        record_of: Names the place of a row: ``annotation 17``, ``line 3``.
    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    record_of: Callable[[int], str]


def assemble(
    images: Sequence[ListedImage],
    objects: ObjectTable,
    *,
    is_relative: bool = False,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> tuple[tuple[ImageRecord, ...], list[Problem]]:
    """Bring the objects into the frame of the upright images and keep what can be trained on.

    Annotated in the frame of the stored picture (its EXIF orientation ignored), boxes are turned with it. This shows
    in the annotated size, so it is seen where the orientation exchanges width and height and the two differ. Elsewhere
    ``options.exif`` decides.

    Args:
        images: What is listed.
        objects: What is in them.
        is_relative: Boxes are shares (0..1) of the upright image instead of pixels.
        options: How lenient reading is.
    """
    headers = read_headers([image.path for image in images])
    is_missing = [isinstance(h, DataError) and not i.path.exists() for i, h in zip(images, headers, strict=True)]
    problems = tell_missing(list(compress(images, is_missing)), len(images), options)
    problems += tell_found(images) + _find_listed_twice(images)
    is_kept = np.zeros(len(images), bool)
    sizes = np.ones((len(images), 2), np.int64)  # upright width and height
    turns = np.ones(len(images), np.int64)
    is_untold = np.zeros(len(images), bool)  # turned by EXIF, and the annotated size fits both frames
    for i, (image, header) in enumerate(zip(images, headers, strict=True)):
        if isinstance(header, DataError):
            problems += [] if is_missing[i] else [_unreadable_image(image, header)]
            continue
        height, width = header.upright_size
        sizes[i] = width, height
        annotated = (image.width, image.height)
        if annotated in {(0, 0), (width, height)}:
            is_kept[i] = True
            is_untold[i] = header.orientation > 1 and annotated in {(0, 0), (header.width, header.height)}
            turns[i] = header.orientation if is_untold[i] and options.exif == "stored" else 1
        elif annotated == (header.width, header.height):
            is_kept[i] = True
            turns[i] = header.orientation
        else:
            problems.append(_wrong_size(image, header))

    is_untold[np.setdiff1d(np.arange(len(images)), objects.rows)] = False  # without objects there is no question
    problems += _unknown_frames(list(compress(images, is_untold)), len(images), options)

    boxes = objects.boxes.copy()
    box_sizes, box_turns = sizes[objects.rows], turns[objects.rows]
    if is_relative:
        boxes *= np.tile(np.where(box_turns[:, None] >= 5, box_sizes[:, ::-1], box_sizes), 2)
    for orientation in np.unique(box_turns[box_turns > 1]):
        turned = box_turns == orientation
        boxes[turned] = turn_boxes(boxes[turned], int(orientation), box_sizes[turned])
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is told of below
        boxes = boxes.astype(np.float32)

    known = np.flatnonzero(is_kept[objects.rows])
    is_sound, box_problems = _judge(boxes, box_sizes, known, images, objects, is_relative)
    problems += box_problems
    limits = np.tile(box_sizes, 2).astype(np.float32)
    boxes = np.clip(boxes, 0, limits)
    return _group(images, sizes, is_kept, objects, boxes, np.flatnonzero(is_sound)), problems


def turn_boxes(boxes: NDArray[np.float64], orientation: int, upright_sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Turn (M, 4) xyxy boxes from the stored picture into its upright one.

    Args:
        boxes: In pixels of the stored picture.
        orientation: EXIF orientation, 2 to 8; those from 5 on exchange width and height.
        upright_sizes: (M, 2) width and height of the upright picture.
    """
    x1, y1, x2, y2 = boxes.T
    width, height = upright_sizes.T
    # from 5 on the stored row is the upright column and the other way round
    across, down = ((y1, y2), (x1, x2)) if orientation >= 5 else ((x1, x2), (y1, y2))
    left, right = (width - across[1], width - across[0]) if orientation in {2, 3, 6, 7} else across
    top, bottom = (height - down[1], height - down[0]) if orientation in {3, 4, 7, 8} else down
    return np.stack([left, top, right, bottom], axis=1)


def _judge(
    boxes: NDArray[np.float32],
    sizes: NDArray[np.int64],
    known: NDArray[np.int64],
    images: Sequence[ListedImage],
    objects: ObjectTable,
    is_relative: bool,
) -> tuple[NDArray[np.bool_], list[Problem]]:
    """Which boxes can be trained on; ``known`` are the rows whose image is."""
    is_open = np.zeros(len(boxes), bool)  # neither condemned nor passed yet
    is_open[known] = True
    problems: list[Problem] = []

    def tell(wrong: Any, severity: Literal["error", "warning"], kind: str, remedy: str) -> None:
        for row in np.flatnonzero(wrong & is_open):
            image = images[objects.rows[row]]
            values = ", ".join(f"{value:.6g}" for value in boxes[row].tolist())
            problems.append(
                Problem(
                    severity=severity,
                    kind=kind,
                    file=image.file,
                    record=f"{objects.record_of(int(row))} of {image.path.name}",
                    message=f"box [{values}] (xyxy) in an image of {sizes[row, 0]} x {sizes[row, 1]}",
                    remedy=remedy,
                )
            )

    def drop(wrong: Any, severity: Literal["error", "warning"], kind: str, remedy: str) -> None:
        tell(wrong, severity, kind, remedy)
        is_open[wrong] = False

    x1, y1, x2, y2 = boxes.T
    width, height = sizes.T
    drop(~np.isfinite(boxes).all(1), "error", "box that is no number", "left out; annotate the object anew")
    drop((x2 < x1) | (y2 < y1), "error", "inverted box", "left out; exchange its corners, its size must be positive")
    drop((x2 == x1) | (y2 == y1), "warning", "box without size", "left out; delete it")
    pixels = "; are these pixels? YOLO's values are shares, 0 to 1" if is_relative else ""
    drop(
        (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0),
        "error",
        "box outside its image",
        f"left out; annotate the object anew{pixels}",
    )
    beyond = np.maximum(np.maximum(-x1, x2 - width), np.maximum(-y1, y2 - height))
    tell(beyond > TOLERANCE_PX, "warning", "box partly outside its image", "clipped to the image")
    return is_open, problems


def _group(
    images: Sequence[ListedImage],
    sizes: NDArray[np.int64],
    is_kept: NDArray[np.bool_],
    objects: ObjectTable,
    boxes: NDArray[np.float32],
    sound: NDArray[np.int64],
) -> tuple[ImageRecord, ...]:
    order = sound[np.argsort(objects.rows[sound], kind="stable")]
    boxes = boxes[order]
    own = objects.areas[order]
    areas = np.where(own > 0, own, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float32)
    labels, crowd = objects.labels[order], objects.crowd[order]
    bounds = np.searchsorted(objects.rows[order], np.arange(len(images) + 1)).tolist()
    return tuple(
        ImageRecord(
            path=images[i].path,
            image_id=images[i].image_id,
            width=int(sizes[i, 0]),
            height=int(sizes[i, 1]),
            boxes=boxes[bounds[i] : bounds[i + 1]],
            labels=labels[bounds[i] : bounds[i + 1]],
            crowd=crowd[bounds[i] : bounds[i + 1]],
            areas=areas[bounds[i] : bounds[i + 1]],
        )
        for i in np.flatnonzero(is_kept).tolist()
    )


def _find_listed_twice(images: Sequence[ListedImage]) -> list[Problem]:
    first: dict[str, ListedImage] = {}
    problems = []
    for image in images:
        other = first.setdefault(os.fspath(image.path), image)
        if other is not image:
            problems.append(
                Problem(
                    "warning", "image listed twice", image.file, image.record,
                    f"{image.path.name} is listed before, as {other.record}",
                    "both are kept; merge their objects into one, or each lacks the other's",
                )
            )  # fmt: skip
    return problems


def _unknown_frames(images: Sequence[ListedImage], num_listed: int, options: ReadOptions) -> list[Problem]:
    if options.exif != "auto" or not images:
        return []
    first = images[0]
    return [
        Problem("warning", "images turned by EXIF", first.file, "",
                f"{len(images)} of {num_listed} images are turned by EXIF, and the annotations do not tell in "
                f"which frame boxes are; the first is {first.path}",
                "boxes are taken in the frame of the upright image; --exif stored if the tool showed images as they "
                "lie in the file, --exif upright to settle it")
    ]  # fmt: skip


def _unreadable_image(image: ListedImage, error: DataError) -> Problem:
    return Problem(
        "error",
        "unreadable image",
        image.path,
        "",
        str(error),
        "left out; replace it or remove it from the annotations",
    )


def _wrong_size(image: ListedImage, header: ImageHeader) -> Problem:
    height, width = header.upright_size
    return Problem(
        "error", "image size differs from its annotation", image.file, image.record,
        f"annotated {image.width} x {image.height}, {image.path.name} is {width} x {height}",
        "left out, since its boxes may be meant for another size; correct the size or annotate the image anew",
    )  # fmt: skip
