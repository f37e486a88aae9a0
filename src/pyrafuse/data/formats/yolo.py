"""YOLO text: a line an object, class and box (or outline) as shares of the image; files -> listed images -> records."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pyrafuse.base.errors import DataError
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.foreign import recognise
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.formats.yolo_labels import expected_labels, find_labels, find_orphans, tell_labels
from pyrafuse.data.formats.yolo_lists import SUFFIXES, YOLOFolder, find_list, find_yolo, read_list
from pyrafuse.data.formats.yolo_writing import YOLO_WRITING
from pyrafuse.data.reading.assembling import assemble
from pyrafuse.data.reading.documents import number_classes
from pyrafuse.data.reading.folders import Tree, decode
from pyrafuse.data.reading.hulls import Box, are_radians, are_scores, box_of_points
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, ObjectTable

_WRITTEN = BoxFormat("shares", "centers")


@dataclass(frozen=True)
class _Line:
    """A label: its class, four numbers (a box's own, or the corners of an outline's box), and an angle or a score."""

    label: int
    box: Box
    source: int = BOX
    fifth: float = 0.0


@FORMATS.register("yolo")
class YOLOFormat(AnnotationFormat):
    """YOLO text, told by a data.yaml or obj.data, or by label files of the images."""

    title = "YOLO text"
    looked_for = "YOLO text (a data.yaml or obj.data, or labels/*.txt beside images/)"
    rank = 30
    writing = YOLO_WRITING
    naming = "put a classes.txt with a name a line beside the labels, or names into the data.yaml"

    def open(self, file: Path) -> DataSet | None:
        return _data_set(read_list(file)) if file.suffix.lower() in SUFFIXES else None

    def find_description(self, tree: Tree) -> DataSet | None:
        listing = find_list(tree)
        return listing and _data_set(read_list(listing))

    def find(self, tree: Tree) -> DataSet | None:
        if listing := find_list(tree, (1, 2)):  # archives are often unpacked into a folder of their own
            return _data_set(read_list(listing))
        folder = find_yolo(tree)
        return folder and _data_set(folder, tree)


def _data_set(folder: YOLOFolder, tree: Tree | None = None) -> DataSet:
    return DataSet(folder.file, {split: partial(read_yolo, folder, split=split) for split in folder.splits}, tree)


def read_yolo(folder: YOLOFolder, *, split: str, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read one split; an image without a label file holds no object."""
    rows: list[int] = []
    parsed_lines: list[_Line] = []
    places: list[tuple[Path, int]] = []
    images: list[ListedImage] = []
    names = folder.names or _numbered_names(folder)
    label_files = find_labels(folder.splits[split])
    problems = _find_duplicate_names(names, folder.file) + find_orphans(folder.splits[split], label_files, rules)
    problems += [*folder.problems, *tell_labels(label_files, folder.file)]
    parse = partial(_parse, num_keypoint_values=folder.num_keypoint_values)
    for row, (image, label_file) in enumerate(zip(folder.splits[split], (f.path for f in label_files), strict=True)):
        images.append(ListedImage(image, row, 0, 0, label_file or folder.file, "", folder.found.get(image)))
        for number, line in enumerate(_read_lines(label_file), 1):
            if label_file is None or not line.strip():
                continue
            parsed = parse(line)
            if isinstance(parsed, str) or not 0 <= parsed.label < len(names):
                problems.append(_faulty_line(parsed, label_file, number, len(names)))
                continue
            rows.append(row)
            parsed_lines.append(parsed)
            places.append((label_file, number))
    there = [image.path for image in images if os.path.isfile(image.path)]
    if there and not any(item.path for item in label_files):
        expected = ", ".join(str(path) for path in expected_labels(there[0]))
        problems.append(
            Problem("error", "no label files at all", folder.file, f"split {split}" if split else "",
                    f"none of {len(there)} images has one; {there[0].name} was expected to have {expected}",
                    "put the label files into labels/, laid out like images/, or beside the images")
        )  # fmt: skip
    faulty = next((problem.file for problem in problems if problem.kind == "malformed line"), None)
    if faulty is not None and not parsed_lines and (foreign := recognise(faulty)):
        raise DataError(f"{faulty} {foreign}")
    fifths = np.array([line.fifth for line in parsed_lines], np.float64)
    if are_scores(fifths) and "rotated" not in rules.box_words:
        problems += [_faulty_line(_SCORE, *places[row], len(names)) for row in np.flatnonzero(fifths).tolist()]
        kept = np.flatnonzero(fifths == 0).tolist()
        rows, places = [rows[i] for i in kept], [places[i] for i in kept]
        parsed_lines = [parsed_lines[i] for i in kept]
        fifths = fifths[kept]
    is_radians = are_radians(fifths[fifths != 0])
    table = ObjectTable(
        rows=np.array(rows, np.int64),
        boxes=np.array([line.box for line in parsed_lines], np.float64).reshape(-1, 4),
        labels=np.array([line.label for line in parsed_lines], np.int64),
        crowd=np.zeros(len(rows), np.bool_),
        areas=np.full(len(rows), np.nan),
        record_of=lambda row: f"line {places[row][1]}",
        written=_WRITTEN,
        sources=np.array([line.source for line in parsed_lines], np.int8),
        angles=fifths if is_radians else np.deg2rad(fifths),
        angle_unit="radians" if is_radians else "degrees",
    )
    records, box_problems = assemble(images, table, rules=rules)
    data = DetectionData(records, names, tuple(range(len(names))), "yolo", split)
    told = tuple(sorted(problems + box_problems, key=lambda p: p.kind != "missing image"))
    unkept = {
        "outlines": sum(line.source == OUTLINE for line in parsed_lines),
        "rotated boxes": int(np.count_nonzero(fifths)),
        "keypoints": len(rows) if folder.num_keypoint_values else 0,
    }
    return Reading(data, told, unkept={what: count for what, count in unkept.items() if count})


def _find_duplicate_names(names: Iterable[str], file: Path) -> list[Problem]:
    return [
        Problem("error", "duplicate class name", file, "names", f"{name!r} is the name of {count} classes",
                "give every class a name of its own")
        for name, count in Counter(names).items() if count > 1
    ]  # fmt: skip


def _read_lines(label_file: Path | None) -> list[str]:
    if label_file is None:
        return []
    try:
        return decode(label_file.read_bytes(), errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{label_file} cannot be read: {error.strerror}; make it readable or remove it") from error


_SCORE = (
    "6 values: the last one is a confidence, which a label has not, so drop it; or it is a rotation in radians, which "
    "--boxes rotated reads"
)


def _parse(line: str, *, num_keypoint_values: int = 0) -> _Line | str:
    """What stands in ``line``, or what is wrong with it. Keypoints are passed over."""
    words = line.split()
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return f"{line.strip()[:60]!r} is not all numbers"
    if not label.is_integer():
        return f"the class is {words[0]}, not a whole number"
    if len(values) in {4, 4 + num_keypoint_values}:
        return _Line(int(label), (values[0], values[1], values[2], values[3]))
    if len(values) == 5:
        return _Line(int(label), (values[0], values[1], values[2], values[3]), fifth=values[4])
    if len(values) >= 6 and len(values) % 2 == 0 and not num_keypoint_values:  # an outline: x and y in turn
        return _Line(int(label), box_of_points(values), OUTLINE)
    other = f"with its keypoints {5 + num_keypoint_values}" if num_keypoint_values else "an outline 7 or more, odd"
    return f"{len(words)} values; a box has 5 (class, centre x, centre y, width, height), {other}"


def _faulty_line(parsed: _Line | str, file: Path, number: int, num_classes: int) -> Problem:
    if isinstance(parsed, str):
        return Problem("error", "malformed line", file, f"line {number}", parsed, "left out; correct the line")
    return Problem(
        "error", "unknown class", file, f"line {number}", f"class {parsed.label} is not in 0..{num_classes - 1}",
        "left out; correct it, or add the class to names",
    )  # fmt: skip


def _numbered_names(folder: YOLOFolder) -> tuple[str, ...]:
    """Classes called by their numbers, as many as the labels of all splits use."""
    largest, where = 0, folder.file
    parse = partial(_parse, num_keypoint_values=folder.num_keypoint_values)
    for label_file in (found.path for images in folder.splits.values() for found in find_labels(images)):
        parsed = map(parse, filter(str.strip, _read_lines(label_file)))
        most = max((p.label for p in parsed if not isinstance(p, str)), default=0)
        if label_file is not None and most > largest:
            largest, where = most, label_file
    return number_classes(largest + 1, where)
