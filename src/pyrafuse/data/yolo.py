"""YOLO text: a line an object, class and box (or outline) as shares of the image; files -> listed images -> records."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pyrafuse.core.errors import DataError
from pyrafuse.core.records import DetectionData
from pyrafuse.data.assembling import ListedImage, ObjectTable, assemble
from pyrafuse.data.folders import SPLIT_WORDS, Tree, read_class_names, read_text, split_of_folder
from pyrafuse.data.images import IMAGE_SUFFIXES
from pyrafuse.data.problems import Problem, Reading


@dataclass(frozen=True)
class YOLOFolder:
    """A whole YOLO data set.

    Attributes:
        splits: The images of each split; ``""`` where nothing names one.
        names: The classes; empty where nothing names them.
        file: The data.yaml, or the folder.
    """

    splits: Mapping[str, tuple[Path, ...]]
    names: tuple[str, ...]
    file: Path


def find_yaml(tree: Tree) -> Path | None:
    """The data.yaml of a folder, whatever it is called: a YAML file, at the top, that names a training split."""
    for path in sorted(tree.root.iterdir()):
        if path.suffix.lower() in {".yaml", ".yml"} and path.is_file():
            try:
                content = _load_yaml(path)
            except DataError:
                if path.stem == "data":
                    raise
                continue  # some other tool's file
            if isinstance(content, dict) and "names" in content and "train" in content:
                return path
    return None


def find_yolo(tree: Tree) -> YOLOFolder | None:
    """The images of a folder without data.yaml, or None if no image has a label file."""
    splits: dict[str, list[Path]] = defaultdict(list)
    is_labelled = False
    names = set(map(os.fspath, tree.named(".txt")))
    for image in tree.images:
        splits[split_of_folder(image.parent, tree.root)].append(image)
        is_labelled = is_labelled or any(os.fspath(path) in names for path in _label_paths(image))
    if not is_labelled:
        return None
    found = {split: tuple(images) for split, images in splits.items()}
    return YOLOFolder(found, read_class_names(tree.root), tree.root)


def read_yaml(path: Path) -> YOLOFolder:
    """Read a data.yaml: ``names`` (list or mapping), ``train``, ``val``, ``test`` and the ``path`` they start from.

    Each split is a folder, a list file, an image, or several of these.

    Raises:
        DataError: If it cannot be read or says nothing of the training images, or a folder that it names is absent.
    """
    content = _load_yaml(path)
    if not isinstance(content, dict) or not content.get("train"):
        raise DataError(f"{path} names no training images; it needs the keys train, val and names")
    bases = [path.parent]
    if content.get("path"):
        given = Path(str(content["path"])).expanduser()
        bases = [path.parent / given, given, path.parent]
    splits = {}
    for key, entry in content.items():
        if key in SPLIT_WORDS and entry:
            try:
                places = [_find_place(str(item), bases, path, key) for item in _as_list(entry)]
            except DataError:
                if SPLIT_WORDS[key] == "test":  # often named and seldom there
                    continue
                raise
            images = [image for place in places for image in _images_at(place, bases)]
            splits[SPLIT_WORDS[key]] = tuple(dict.fromkeys(images))
    return YOLOFolder(splits, _names_of(content, path), path)


def read_yolo(folder: YOLOFolder, *, split: str) -> Reading:
    """Read one split; an image without a label file holds no object."""
    rows: list[int] = []
    labels: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    places: list[tuple[Path, int]] = []
    images: list[ListedImage] = []
    problems: list[Problem] = []
    names = folder.names or _numbered_names(folder)
    num_labelled = 0
    for row, image in enumerate(folder.splits[split]):
        label_file, lines = _read_lines(image)
        num_labelled += label_file is not None
        images.append(ListedImage(image, row, 0, 0, label_file or image, ""))
        for number, line in enumerate(lines, 1):
            if label_file is None or not line.strip():
                continue
            parsed = _parse(line)
            if isinstance(parsed, str) or not 0 <= parsed[0] < len(names):
                problems.append(_faulty_line(parsed, label_file, number, len(names)))
                continue
            rows.append(row)
            labels.append(parsed[0])
            boxes.append(parsed[1])
            places.append((label_file, number))
    if images and not num_labelled:
        expected = ", ".join(str(path) for path in _label_paths(images[0].path))
        problems.append(
            Problem("error", "no label files at all", folder.file, f"split {split}" if split else "",
                    f"none of {len(images)} images has one; {images[0].path.name} was expected to have {expected}",
                    "put the label files into labels/, laid out like images/, or beside the images")
        )  # fmt: skip
    table = ObjectTable(
        rows=np.array(rows, np.int64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        crowd=np.zeros(len(rows), np.bool_),
        areas=np.full(len(rows), np.nan),
        record_of=lambda row: f"line {places[row][1]}",
    )
    records, box_problems = assemble(images, table, is_relative=True)
    data = DetectionData(records, names, tuple(range(len(names))), "yolo", split)
    return Reading(data, tuple(problems + box_problems))


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that the calendar lacks
        raise DataError(f"{path} is no YAML that can be read: {' '.join(str(error).split())}") from error


def _as_list(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def _find_place(entry: str, bases: Sequence[Path], file: Path, key: str) -> Path:
    # Roboflow writes ../train/images and means train/images
    tried = [base / text for base in bases for text in dict.fromkeys((entry, entry.removeprefix("../")))]
    for place in tried:
        if place.exists():
            return place
    raise DataError(
        f"{file} gives {entry!r} as {key}, but there is no {' and no '.join(map(str, dict.fromkeys(tried)))}; "
        "correct path or the entry"
    )


def _images_at(place: Path, bases: Sequence[Path]) -> list[Path]:
    if place.is_dir():
        return list(Tree(place).images)
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return [place]
    images = []
    for line in read_text(place).splitlines():
        if line := line.strip():
            candidates = [base / line for base in (place.parent, *bases)]
            images.append(next((path for path in candidates if path.exists()), candidates[0]))
    return images


def _names_of(content: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path} numbers its classes {sorted(names, key=str)}; number them 0 to {len(names) - 1}")
        names = [names[i] for i in range(len(names))]
    if isinstance(names, list) and names:
        if len(names) != content.get("nc", len(names)):
            raise DataError(f"{path} names {len(names)} classes, but its nc is {content['nc']}; correct one of them")
        return tuple(map(str, names))
    if isinstance(content.get("nc"), int) and content["nc"] > 0:
        return tuple(map(str, range(content["nc"])))
    raise DataError(f"{path} names no classes; add names, a list with one name a class")


def _label_paths(image: Path) -> tuple[Path, ...]:
    """Where the labels of ``image`` may lie: in labels/ instead of the last images/ on its way, or beside it."""
    beside = image.with_suffix(".txt")
    head, found, tail = beside.as_posix().rpartition("/images/")
    return (Path(f"{head}/labels/{tail}"), beside) if found else (beside, beside.parent / "labels" / beside.name)


def _read_lines(image: Path) -> tuple[Path | None, list[str]]:
    for path in _label_paths(image):
        try:
            return path, path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; make it readable or remove it") from error
    return None, []


def _parse(line: str) -> tuple[int, tuple[float, float, float, float]] | str:
    """Class and box, xyxy as shares of the image; or what is wrong with ``line``."""
    words = line.split()
    try:
        label, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        return f"{line.strip()[:60]!r} is not all numbers"
    if not label.is_integer():
        return f"the class is {words[0]}, not a whole number"
    if len(values) == 4:
        x, y, width, height = values
        return int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) >= 6 and len(values) % 2 == 0:  # an outline: x and y in turn
        xs, ys = values[0::2], values[1::2]
        return int(label), (min(xs), min(ys), max(xs), max(ys))
    return f"{len(words)} values; a box has 5 (class, centre x, centre y, width, height), an outline 7 or more, odd"


def _faulty_line(
    parsed: tuple[int, tuple[float, float, float, float]] | str, file: Path, number: int, num_classes: int
) -> Problem:
    if isinstance(parsed, str):
        return Problem("error", "malformed line", file, f"line {number}", parsed, "left out; annotate the object anew")
    return Problem(
        "error", "unknown class", file, f"line {number}", f"class {parsed[0]} is not in 0..{num_classes - 1}",
        "left out; correct it, or add the class to names",
    )  # fmt: skip


def _numbered_names(folder: YOLOFolder) -> tuple[str, ...]:
    """Classes called by their numbers, as many as the labels of all splits use."""
    largest = 0
    for image in (image for images in folder.splits.values() for image in images):
        parsed = map(_parse, filter(str.strip, _read_lines(image)[1]))
        largest = max([largest, *(p[0] for p in parsed if not isinstance(p, str))])
    return tuple(map(str, range(largest + 1)))
