"""From objects as they were written down to records that can be trained on: listed images + objects -> records.

Whatever is wrong with a box or an image is told in a `Problem`, and the box or image is mended or left out.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.boxes import clip_boxes
from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import ImageHeader, read_headers
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.reading.judging import drop_repeats, judge_boxes, place_boxes, tell_hulls
from pyrafuse.data.reading.listed import ListedImage, tell_found, tell_missing
from pyrafuse.data.reading.problems import Problem
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules
from pyrafuse.data.reading.tables import ObjectTable


def assemble(
    images: Sequence[ListedImage], objects: ObjectTable, *, rules: ReadingRules = DEFAULT_RULES
) -> tuple[tuple[ImageRecord, ...], list[Problem]]:
    """Bring the objects into the frame of the upright images and keep what can be trained on.

    Annotated in the frame of the stored picture (its EXIF orientation ignored), boxes are turned with it. This shows
    in the annotated size, so it is seen where the orientation exchanges width and height and the two differ. Elsewhere
    ``rules.exif`` decides.

    Args:
        images: What is listed.
        objects: What is in them.
        rules: How lenient reading is, and what the numbers of a box are.

    Raises:
        DataError: If the boxes as a whole look like something else than they are taken for.
    """
    headers = read_headers([image.path for image in images])
    is_missing = [isinstance(h, DataError) and not os.path.exists(i.path) for i, h in zip(images, headers, strict=True)]
    problems = tell_missing(list(compress(images, is_missing)), len(images), rules)
    problems += tell_found(images)
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
            turns[i] = header.orientation if is_untold[i] and rules.exif == "stored" else 1
        elif annotated == (header.width, header.height):
            is_kept[i] = True
            turns[i] = header.orientation
        else:
            problems.append(_wrong_size(image, header))

    is_untold[np.setdiff1d(np.arange(len(images)), objects.rows)] = False  # without objects there is no question
    problems += _unknown_frames(list(compress(images, is_untold)), len(images), rules)

    is_known, box_sizes, box_turns = is_kept[objects.rows], sizes[objects.rows], turns[objects.rows]
    rows, is_kept, merge_problems = _merge_listed_twice(images, objects.rows, is_kept)
    problems += merge_problems
    frames = np.where(box_turns[:, None] >= 5, box_sizes[:, ::-1], box_sizes)  # as the boxes were annotated
    placed = place_boxes(images, objects, frames, is_known, rules)
    boxes = placed.boxes
    for orientation in np.unique(box_turns[box_turns > 1]):
        turned = box_turns == orientation
        boxes[turned] = turn_boxes(boxes[turned], int(orientation), box_sizes[turned])
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is told of below
        boxes = boxes.astype(np.float32)

    is_sound, box_problems = judge_boxes(boxes, box_sizes, is_known, images, objects, placed.is_rotated)
    widths, heights = np.split(box_sizes.astype(np.float32), 2, axis=1)
    boxes = clip_boxes(boxes, (heights, widths))
    sound, repeat_problems = drop_repeats(boxes, np.flatnonzero(is_sound), rows, images, objects)
    problems += box_problems + repeat_problems + tell_hulls(images, objects, sound, placed.is_rotated)
    areas = objects.areas if placed.has_own_areas else np.full(len(rows), np.nan)
    return _group(images, sizes, is_kept, replace(objects, rows=rows, areas=areas), boxes, sound), problems


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
    areas = np.where(
        (own > 0) & (own <= np.finfo(np.float32).max), own, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ).astype(np.float32)
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


def _merge_listed_twice(
    images: Sequence[ListedImage],
    rows: NDArray[np.int64],
    is_kept: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[Problem]]:
    """Put the objects of an image that is listed twice together: each entry alone lacks the other's.

    Returns:
        The image of each object, the images to keep, and a warning for each further entry.
    """
    first: dict[str, int] = {}
    target = np.arange(len(images))
    problems = []
    for i in np.flatnonzero(is_kept).tolist():
        image = images[i]
        j = target[i] = first.setdefault(os.fspath(image.path), i)
        if j != i:
            problems.append(
                Problem("warning", "image listed twice", image.file, image.record,
                        f"{image.path.name} is listed before, as {images[j].record or images[j].file}",
                        "its objects are put with those of the first entry; merge them in the annotations")
            )  # fmt: skip
    return target[rows], is_kept & (target == np.arange(len(images))), problems


def _unknown_frames(images: Sequence[ListedImage], num_listed: int, rules: ReadingRules) -> list[Problem]:
    if rules.exif != "auto" or not images:
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
        "left out, and nothing is trained until it is replaced or removed from the data",
    )


def _wrong_size(image: ListedImage, header: ImageHeader) -> Problem:
    height, width = header.upright_size
    return Problem(
        "error", "image size differs from its annotation", image.file, image.record,
        f"annotated {image.width} x {image.height}, {image.path.name} is {width} x {height}",
        "left out, since its boxes may be meant for another size; correct the size or annotate the image anew",
    )  # fmt: skip
