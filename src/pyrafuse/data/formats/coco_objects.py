"""The objects of a COCO file: boxes, outlines where there is no box, rotations; annotations -> `ObjectTable`."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.data.reading.documents import as_float
from pyrafuse.data.reading.hulls import NO_BOX, are_radians, are_scores, box_of_points, box_of_segmentation, is_tilted
from pyrafuse.data.reading.problems import Problem
from pyrafuse.data.reading.rules import BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, ObjectTable, is_set

_WRITTEN = BoxFormat("pixels", "sizes")
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def read_objects(
    annotations: Sequence[Mapping[str, Any]],
    path: Path,
    row_of: Mapping[Any, int],
    label_of: Mapping[int | str, int],
    rules: ReadingRules,
) -> tuple[ObjectTable, list[Problem]]:
    """The objects whose image and class are known, and what is wrong with the others.

    Args:
        annotations: Annotations as they stand in the file.
        path: Path of the file.
        row_of: The rank of each image by its id.
        label_of: The label of each category by its id.
        rules: What the numbers of a box are said to be.
    """
    ids = [a.get("id") for a in annotations]
    rows = _look_up([a.get("image_id") for a in annotations], row_of)
    labels = _look_up([a.get("category_id") for a in annotations], label_of)
    problems = _find_duplicate_ids(ids, path)
    for i in np.flatnonzero((rows < 0) | (labels < 0)).tolist():
        image_id, category_id = annotations[i].get("image_id"), annotations[i].get("category_id")
        is_lost = rows[i] < 0
        problems.append(
            Problem(
                severity="error",
                kind="object of an unknown image" if is_lost else "unknown class",
                file=path,
                record=f"annotation {ids[i]}",
                message=f"image_id {image_id} is none of the images" if is_lost
                else f"category_id {category_id} is none of {_range(label_of)}",
                remedy="left out; correct the id" if is_lost else "left out; correct it, or add the category",
            )
        )  # fmt: skip
    known = np.flatnonzero((rows >= 0) & (labels >= 0))
    kept = annotations if len(known) == len(annotations) else [annotations[i] for i in known.tolist()]
    boxes, sources, fifths = _read_boxes(kept)
    angles, angle_unit = _read_angles(kept, fifths, rules)
    if angles is not None:
        _prefer_tilted_outlines(kept, boxes, sources, angles)
    known_ids = [ids[i] for i in known.tolist()]
    table = ObjectTable(
        rows=rows[known],
        boxes=boxes,
        labels=labels[known],
        crowd=np.array([is_set(annotation.get("iscrowd")) for annotation in kept], np.bool_),
        areas=_read_areas(kept),
        record_of=lambda row: f"annotation {known_ids[row]}",
        written=_WRITTEN,
        sources=sources,
        angles=angles,
        angle_unit=angle_unit,
    )
    return table, problems


def count_unkept(annotations: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many annotations hold what boxes do not: outlines, keypoints, a rotation, attributes; none of none."""
    found = {
        "outlines": sum(bool(annotation.get("segmentation")) for annotation in annotations),
        "keypoints": sum(bool(annotation.get("keypoints")) for annotation in annotations),
        "rotated boxes": sum(_angle_of(annotation, "rotation") != 0 for annotation in annotations),
        "attributes of objects": sum(_has_attributes(annotation.get("attributes")) for annotation in annotations),
    }
    return {what: count for what, count in found.items() if count}


def _has_attributes(attributes: Any) -> bool:
    return isinstance(attributes, dict) and any(value for name, value in attributes.items() if name != "rotation")


def _look_up(ids: Sequence[Any], table: Mapping[Any, int]) -> NDArray[np.int64]:
    """What ``table`` says of each id, -1 for one it does not hold."""
    return np.array([table.get(spell(i), -1) for i in ids], np.int64)


def spell(value: Any) -> int | str | None:
    """One spelling of an id: the whole number for 1.0 (as pandas writes it) and "1", not for "01"; None for none."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return None
    return int(value) if _WHOLE_NUMBER.fullmatch(value) else value or None


def as_written(value: int | float | str) -> int | str:
    """The id that results have, so that they are told equal to the file's own: a text stays one."""
    return value if isinstance(value, str) else int(value)


def _read_boxes(
    annotations: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    """The boxes as they stand, else those of outlines, NaN for neither; where each is from; and fifth numbers, or 0."""
    count = len(annotations)
    sources, fifths = np.full(count, BOX, np.int8), np.zeros(count)
    try:
        boxes = np.array([a["bbox"] for a in annotations], np.float64).reshape(count, -1)
        if boxes.shape == (count, 4) and boxes[:, 2:].all():
            return boxes, sources, fifths
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # one is malformed: look at each
    boxes = np.full((count, 4), np.nan)
    for i, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        if not (isinstance(box, list) and all(isinstance(value, int | float) for value in box)):
            box = []
        box = [as_float(value) for value in box]
        if len(box) in {4, 5}:
            boxes[i], fifths[i] = box[:4], box[4] if len(box) == 5 else 0
        if len(box) == 8:  # four corners
            boxes[i], sources[i] = box_of_points(box), OUTLINE
        elif not np.nan_to_num(boxes[i, 2:]).all():  # none, or the zeros of a tool that knows outlines only
            outline = box_of_segmentation(annotation.get("segmentation"))
            if outline != NO_BOX:
                boxes[i], sources[i] = outline, OUTLINE
    return boxes, sources, fifths


def _read_angles(
    annotations: Sequence[Mapping[str, Any]], fifths: NDArray[np.float64], rules: ReadingRules
) -> tuple[NDArray[np.float64] | None, str]:
    """Radians by which each box is rotated, None where none is, and what the numbers were taken for.

    ``rotation`` is in degrees, as CVAT writes it; ``angle`` and a fifth number in degrees, or radians if no more than
    a full turn. Fifth numbers that can be scores make their boxes NaN, unless they are said to be angles.
    """
    rotations = np.array([_angle_of(a, "rotation") for a in annotations], np.float64)
    others = np.array([_angle_of(a, "angle") or _angle_of(a, "theta") for a in annotations], np.float64)
    others = np.where(others == 0, fifths, others)
    others[rotations != 0] = 0
    if not rotations.any() and not others.any():
        return None, ""
    if are_scores(fifths) and not rotations.any() and "rotated" not in rules.box_words:
        others[fifths != 0] = np.nan
    is_radians = are_radians(others[others != 0])
    angles = np.where(rotations != 0, np.deg2rad(rotations), others if is_radians else np.deg2rad(others))
    if not is_radians:
        return angles, "degrees"
    return angles, "degrees under rotation, else as radians" if rotations.any() else "radians"


def _prefer_tilted_outlines(
    annotations: Sequence[Mapping[str, Any]],
    boxes: NDArray[np.float64],
    sources: NDArray[np.int8],
    angles: NDArray[np.float64],
) -> None:
    """Take the box of the outline where a rotated object has one that stands aslant: it is rotated already."""
    angles[sources == OUTLINE] = 0
    for i in np.flatnonzero(angles).tolist():
        segmentation = annotations[i].get("segmentation")
        if is_tilted(segmentation):
            boxes[i], sources[i], angles[i] = box_of_segmentation(segmentation), OUTLINE, 0


def _angle_of(annotation: Mapping[str, Any], key: str) -> float:
    """The number under ``key``, of the annotation or its attributes; 0 for none."""
    for place in (annotation, annotation.get("attributes")):
        value = place.get(key) if isinstance(place, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            return number if math.isfinite(number := float(value)) else 0.0
        except (ValueError, OverflowError):
            continue
    return 0.0


def _read_areas(annotations: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    return np.array(
        [as_float(area) if isinstance(area := a.get("area"), int | float) else np.nan for a in annotations], np.float64
    )


def _find_duplicate_ids(ids: Sequence[Any], path: Path) -> list[Problem]:
    given = [i for i in ids if isinstance(i, int | float | str)]
    if len(set(given)) == len(given):
        return []
    return [
        Problem("warning", "duplicate annotation id", path, f"annotation {value}",
                f"{count} annotations have the id {value}", "all are kept; give every annotation its own id")
        for value, count in Counter(given).items() if count > 1
    ]  # fmt: skip


def _range(label_of: Mapping[int | str, int]) -> str:
    ids = list(label_of)
    return f"the {len(ids)} category ids, {ids[0]} to {ids[-1]}" if len(ids) > 10 else str(ids)
