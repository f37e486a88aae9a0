"""Detections that a file holds, of this or any other detector: COCO results, JSON -> rows of images -> `CocoEvaluator`.

A list of records: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels), ``score``. What cannot be a
detection ends the reading; what is of other images or classes is passed over and counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import counted, list_names, printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.coco_objects import spell
from pyrafuse.data.reading.documents import read_json, shorten
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.collecting import require_objects
from pyrafuse.evaluation.result import COCO_DETECTIONS

MAX_RESULTS_BYTES = 2 << 30

LARGEST_PX = 1e7
"""Largest coordinate that a box may have."""

_KEYS = ("image_id", "category_id", "bbox", "score")
_NO_LEVEL = -1.0


@dataclass(frozen=True)
class ResultsFile:
    """What a file of results told of a data set.

    Attributes:
        evaluator: Holds the detections, ready to `compute`.
        notes: Sentences about what was passed over, and what is strange.
    """

    evaluator: CocoEvaluator
    notes: tuple[str, ...]


def read_results(
    path: Path, data: DetectionData, *, score: float = 0.0, max_detections: int | None = None
) -> ResultsFile:
    """Read COCO results and match them to the images and classes of ``data`` by their ids.

    Records with a ``file_name``, as `pyrafuse predict` writes them, are matched by it, where the names of the images
    differ: the ids of pictures in a folder are not those of annotations. Records with a ``category_name`` are matched
    by it where the data know it: a detector that was trained on other data has their ids.

    Args:
        path: Path of the file, or of a folder of such files, whose records are counted on.
        data: What the detections are of.
        score: Detections that score less are left out.
        max_detections: Maximum number of detections counted per image and class; by default COCO's 100.

    Raises:
        DataError: If ``data`` have no object to be found, the file holds no list of records, a record has no number
            where one belongs, or none is of an image and class of ``data``. The message names the record, from 1 on.
    """
    require_objects(data)
    records = _read_records(path)
    evaluator = CocoEvaluator(data, max_detections=max_detections or COCO_DETECTIONS)
    if not records:
        return ResultsFile(evaluator, (f"{path} holds no detection: nothing is found, and AP is 0",))
    boxes, scores = _read_numbers(path, records)
    rows, key = _find_images(records, data)
    labels, naming, shifted = _find_classes(records, data)
    notes = [
        f"{path}: {counted(int(absent.sum()), 'detection')} of {of}, passed over; the first is record "
        f"{int(absent.argmax()) + 1} with {name} {shorten(records[int(absent.argmax())][name])}"
        for absent, name, of in (
            (rows < 0, key, f"images that the {data.split} split does not have"),
            ((labels < 0) & (rows >= 0), naming, "classes that the data do not have"),
        )
        if absent.any()
    ]
    notes += [f"{path}: {each}" for each in shifted]
    if naming == "category_id" and ((labels < 0) & (rows >= 0)).any():
        notes.append(_tell_classes(data, {spell(record["category_id"]) for record in records}))
    known = (rows >= 0) & (labels >= 0)
    if not known.any():
        raise DataError(
            f"no detection in {path} is of an image and class of the {data.split} split. {notes[0]}. The data have the "
            f"image ids {list_names([r.image_id for r in data.records], most=5)} and the category ids "
            f"{list_names(data.category_ids)}: name the data set that was predicted on"
        )
    notes += _find_strange(path, boxes[known], rows[known], np.flatnonzero(known), data)
    kept = known & (scores >= score)
    columns = (rows, boxes[:, :2], boxes[:, :2] + boxes[:, 2:], scores, labels, np.full(len(rows), _NO_LEVEL))
    evaluator.merge(np.column_stack(columns)[kept])
    return ResultsFile(evaluator, tuple(notes))


def _read_records(path: Path) -> Sequence[Mapping[str, Any]]:
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise DataError(f"{path} is a folder without .json: name a file of results, or a folder of them")
        return [record for file in files for record in _read_records(file)]
    records = read_json(path, most=MAX_RESULTS_BYTES)
    if not isinstance(records, list):
        what = f"an object with {list_names(records, most=5)}" if isinstance(records, dict) else shorten(records)
        raise DataError(
            f"{path} holds {what}, and no list of results, [{{'image_id': 1, 'category_id': 1, 'bbox': [x, y, width, "
            "height], 'score': 0.9}, ...]; pyrafuse predict writes one with --formats coco"
        )
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or not record.keys() >= set(_KEYS):
            absent = "no object" if not isinstance(record, dict) else f"without {', '.join(set(_KEYS) - record.keys())}"
            raise DataError(f"{path}, record {number} is {absent}: {shorten(record)}; results need {', '.join(_KEYS)}")
    return records


def _read_numbers(path: Path, records: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 4) boxes as they stand, and (N,) scores.

    Raises:
        DataError: If one is no finite number, a width or height is negative, or a score lies outside 0..1.
    """
    for number, record in enumerate(records, 1):
        box = record["bbox"]
        if type(box) is not list or len(box) != 4 or {*map(type, box), type(record["score"])} - {int, float}:
            raise DataError(
                f"{path}, record {number}: bbox {shorten(box)} and score {shorten(record['score'])}; a box is four "
                "numbers, [x, y, width, height] in pixels, and a score is one from 0 to 1"
            )
    try:
        flat = np.fromiter(chain.from_iterable(r["bbox"] for r in records), np.float64, 4 * len(records))
        scores = np.fromiter((record["score"] for record in records), np.float64, len(records))
    except OverflowError as error:
        raise DataError(f"{path} holds a whole number that no coordinate can be: {error}; correct it") from error
    boxes = flat.reshape(-1, 4)
    for wrong, what in (
        (~np.isfinite(boxes).all(axis=1) | ~np.isfinite(scores), "values are not finite: the detector has diverged"),
        ((np.abs(boxes) > LARGEST_PX).any(axis=1), f"no image has more than {LARGEST_PX:g} pixels in a row"),
        ((boxes[:, 2:] < 0).any(axis=1), "a width or height is negative; boxes are [x, y, width, height]"),
        ((scores < 0) | (scores > 1), "a score lies in 0..1; divide percents by 100"),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            raise DataError(
                f"{path}, record {first + 1}: bbox {boxes[first].tolist()} and score {scores[first]}: {what} "
                f"({counted(int(wrong.sum()), 'such record')})"
            )
    return boxes, scores


def _find_images(records: Sequence[Mapping[str, Any]], data: DetectionData) -> tuple[NDArray[np.int64], str]:
    """The row of each record's image, -1 for none, and the key that told it."""
    names = {spell(record.path.name): row for row, record in enumerate(data.records)}
    if len(names) == len(data.records) and all(isinstance(record.get("file_name"), str) for record in records):
        return _look_up((Path(record["file_name"]).name for record in records), names), "file_name"
    row_of = {spell(record.image_id): row for row, record in enumerate(data.records)}
    return _look_up((record["image_id"] for record in records), row_of), "image_id"


def _find_classes(
    records: Sequence[Mapping[str, Any]], data: DetectionData
) -> tuple[NDArray[np.int64], str, Sequence[str]]:
    """The label of each record, -1 for none, the key that told it, and a note where id and name tell two classes."""
    by_id = _look_up((r["category_id"] for r in records), {spell(i): k for k, i in enumerate(data.category_ids)})
    names = [name if isinstance(name := r.get("category_name"), str) else None for r in records]
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(data.names)}
    by_name = np.array([label_of.get(name, -1) for name in names], np.int64)
    is_named = np.array([name is not None for name in names])
    is_by_name = is_named.all() and (by_name >= 0).any() and len(label_of) == len(data.names)
    labels, key = (by_name, "category_name") if is_by_name else (by_id, "category_id")
    differ = is_named & (labels >= 0) & (by_id >= 0) & (by_id != by_name)
    if not differ.any():
        return labels, key, ()
    first = int(differ.argmax())
    told = (
        f"{counted(int(differ.sum()), 'detection')} with a category_id of another name in the data; the first is "
        f"record {first + 1}: {shorten(records[first]['category_id'])} is {shorten(names[first])} in the file and "
        f"{shorten(data.names[by_id[first]])} in the data. {key} decides"
    )
    return labels, key, (told,)


def _look_up(ids: Iterable[Any], row_of: Mapping[Any, int]) -> NDArray[np.int64]:
    """What ``row_of`` says of each id, -1 for one it does not hold."""
    return np.array([row_of.get(spell(i), -1) for i in ids], np.int64)


def _tell_classes(data: DetectionData, given: Collection[Any]) -> str:
    """What the ids of the data are, beside those in a file that has others: both may count from different numbers."""
    own = ", ".join(
        f"{spell(i)} {printable(name, limit=40)}" for i, name in zip(data.category_ids[:5], data.names, strict=False)
    )
    more = f" and {len(data.names) - 5} more" if len(data.names) > 5 else ""
    return (
        f"the data have the category ids {own}{more}; the file has {list_names(sorted(given, key=str), most=5)}. Where "
        "both count from different numbers, every class is wrong: correct category_id in the file"
    )


def _find_strange(
    path: Path, boxes: NDArray[np.float64], rows: NDArray[np.int64], numbers: NDArray[np.int64], data: DetectionData
) -> list[str]:
    """Notes about boxes that no detector finds, which count as they are: such that lie outside, or are empty."""
    sides = np.array([(record.width, record.height) for record in data.records], np.float64)[rows]
    ends = boxes[:, :2] + boxes[:, 2:]
    return [
        f"{path}: {counted(int(strange.sum()), 'box', 'boxes')} {what}; the first is record "
        f"{numbers[strange.argmax()] + 1}. They count as false detections{hint}"
        for strange, what, hint in (
            ((boxes[:, 2:] == 0).any(axis=1), "without area", ""),
            (
                ((ends > 1.5 * sides) | (boxes[:, :2] < -0.5 * sides)).any(axis=1),
                "that reach far beyond their image",
                ": are these corners, x1, y1, x2, y2, in place of x, y, width, height?",
            ),
        )
        if strange.any()
    ]
