"""Hugging Face's image folder: metadata.jsonl beside the images, a line an image; lines -> named boxes -> records.

The layout is told in the documentation of Hugging Face's datasets, "Create an image dataset", object detection.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.strict_yaml import BoundedLoader
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.class_lists import find_class_lists, join_class_lists
from pyrafuse.data.reading.documents import number_classes, read_head, read_json_lines, shorten
from pyrafuse.data.reading.folders import Tree, split_of_folder
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.named_boxes import NamedBox, NamedImage, read_named_boxes
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import is_set
from pyrafuse.data.writing.encoding import encode_split
from pyrafuse.data.writing.layouts import AREAS, ASIDE, BARE_CLASSES, FRACTIONS, PlacedSplit, Writing

_WRITTEN = BoxFormat("pixels", "sizes")
_FILE = "metadata.jsonl"
_BOXES = ("bbox", "bboxes", "boxes")
_CLASSES = ("categories", "category", "category_id", "label", "labels", "class", "class_label")


@dataclass
class _Part:
    """What one file holds of one split."""

    images: list[NamedImage] = field(default_factory=list)
    objects: list[tuple[NamedBox, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unkept: Counter[str] = field(default_factory=Counter)


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    names = {str(number): name for number, name in enumerate(splits[0].data.names)}
    objects = {"name": "objects", "sequence": [{"name": "categories", "dtype": {"class_label": {"names": names}}}]}
    features = [{"name": "image", "dtype": "image"}, objects]
    card = yaml.safe_dump({"dataset_info": {"features": features}}, sort_keys=False, allow_unicode=True)
    yield "README.md", f"---\n{card}---\n"
    for split in splits:
        lines = []
        boxes = encode_split(split.data, _WRITTEN)
        for record, place, numbers in zip(split.data.records, split.places, boxes, strict=True):
            held = {
                "bbox": numbers,
                "categories": record.labels.tolist(),
                "area": [float(str(area)) for area in record.areas],
                "iscrowd": record.crowd.astype(int).tolist(),
            }
            row = {
                "file_name": place.rpartition("/")[2], "image_id": record.image_id, "width": record.width,
                "height": record.height, "objects": held,
            }  # fmt: skip
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        yield f"{split.data.split}/{_FILE}".lstrip("/"), "".join(lines)


@FORMATS.register("imagefolder")
class ImageFolderFormat(AnnotationFormat):
    """Hugging Face's image folder, told by metadata.jsonl."""

    title = "Hugging Face image folder"
    looked_for = "Hugging Face image folder (train/metadata.jsonl with file_name and objects)"
    rank = 65
    set_aside = ("crowds (iscrowd 1)", "if they are single objects, set iscrowd to 0")
    naming = (
        "put a classes.txt with a name a line beside the folders of the splits, or class_label names into README.md"
    )

    writing = Writing(
        texts=_write,
        image_folder="{split}",
        keeps=frozenset({FRACTIONS, ASIDE, AREAS, BARE_CLASSES}),
    )

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), [file]) if _is_metadata(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        files = [path for path in tree.named(".jsonl") if _is_metadata(path)]
        return _data_set(tree.root, tree, files) if files else None


def _is_metadata(path: Path) -> bool:
    return path.name.casefold() == _FILE and all(
        f'"{key}"' in read_head(path, 1 << 16) for key in ("file_name", "objects")
    )


def _data_set(path: Path, tree: Tree, files: Sequence[Path]) -> DataSet:
    parts: dict[str, list[tuple[Path, _Part]]] = defaultdict(list)
    for file in files:
        for split, part in _read_file(file, tree).items():
            parts[split].append((file, part))
    lists = find_class_lists(tree.root, dict.fromkeys(file.parent for file in files), are_numbered=True)
    names = (
        join_class_lists(lists)
        or _names_of_card(tree.root / "README.md")
        or _names_of_card(tree.root.parent / "README.md")
    )
    return DataSet(path, {s: partial(read_parts, listed, s, names, tree) for s, listed in parts.items()}, tree)


def read_parts(
    parts: Sequence[tuple[Path, _Part]],
    split: str,
    names: Sequence[str],
    tree: Tree,
    rules: ReadingRules = DEFAULT_RULES,
) -> Reading:
    """Read one split; numbered classes have the names of a classes.txt or the data set's card, else their numbers."""
    readings = []
    for file, part in parts:
        numbers = [given for _, given in part.objects if isinstance(given, int)]
        listed = tuple(names) or number_classes(max(numbers, default=-1) + 1, file)
        objects = [
            NamedBox(
                **{
                    **vars(item),
                    "name": listed[given] if isinstance(given, int) and 0 <= given < len(listed) else str(given),
                }
            )
            for item, given in part.objects
        ]
        reading = read_named_boxes(
            objects, file=file, tree=tree, split=split, names=listed, images=part.images, written=_WRITTEN,
            rules=rules, unkept=part.unkept,
        )  # fmt: skip
        readings.append(Reading(reading.data, (*part.problems, *reading.problems), unkept=reading.unkept))
    return join_readings(readings)


def _read_file(file: Path, tree: Tree) -> dict[str, _Part]:
    """What a file holds of each split: that of its folder, else that of each image's folder."""
    parts: dict[str, _Part] = defaultdict(_Part)
    own = split_of_folder(file.parent, tree.root)
    for line, row in read_json_lines(file):
        name = row.get("file_name") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name.strip():
            parts[own].problems.append(_faulty(file, line, f"{shorten(row)} has no file_name"))
            continue
        base = PurePosixPath(name.replace("\\", "/")).parent
        split = own or split_of_folder(Path("/", base), Path("/"))
        part = parts[split]
        width, height = _whole(row.get("width")), _whole(row.get("height"))
        image_id = row.get("image_id")
        is_id = isinstance(image_id, int | str) and not isinstance(image_id, bool)
        part.images.append(NamedImage(name, width, height, image_id=image_id if is_id else None))
        _read_objects(row, name, file, line, part)
    return parts


def _read_objects(row: Mapping[str, Any], image: str, file: Path, line: int, part: _Part) -> None:
    given = row.get("objects")
    if isinstance(given, list):  # an object each, in place of a list a key
        keys = {key for item in given if isinstance(item, dict) for key in item}
        given = {key: [item.get(key) if isinstance(item, dict) else None for item in given] for key in keys}
    if not given:
        return
    boxes = next((given[key] for key in _BOXES if isinstance(given, dict) and isinstance(given.get(key), list)), None)
    classes = next(
        (given[key] for key in _CLASSES if isinstance(given, dict) and isinstance(given.get(key), list)), None
    )
    if boxes is None or classes is None or len(boxes) != len(classes):
        part.problems.append(
            _faulty(file, line, f"objects is {shorten(given)}; it needs bbox and categories, lists of one length")
        )
        return
    others = {key: given[key] for key in ("area", "iscrowd") if _fits(given.get(key), boxes)}
    for rank, (box, label) in enumerate(zip(boxes, classes, strict=True)):
        numbers = [_number(v) for v in box] if isinstance(box, list) else []
        if len(numbers) != 4 or label is None:
            part.problems.append(_faulty(file, line, f"object {rank} is {shorten(box)} of class {label!r}"))
            continue
        area = others["area"][rank] if "area" in others else math.nan
        part.objects.append((
            NamedBox(
                image, "", numbers, f"object {rank} of line {line}",
                is_aside="iscrowd" in others and is_set(others["iscrowd"][rank]),
                area=_number(area),
            ),
            int(label) if isinstance(label, float) and label.is_integer() else label,
        ))  # fmt: skip
    part.unkept["further fields of objects"] += len(given.keys() - {*_BOXES, *_CLASSES, "area", "iscrowd", "id"})


def _fits(values: Any, boxes: Sequence[Any]) -> bool:
    return isinstance(values, list) and len(values) == len(boxes)


def _load_head(text: str) -> Any:
    return yaml.load(text.split("\n---", 1)[0].removeprefix("---"), Loader=BoundedLoader)


def _names_of_card(card: Path) -> tuple[str, ...]:
    """The names of the class label of objects in the head of a data set's card; empty where it tells none."""
    if not card.is_file():
        return ()
    text = read_head(card, 1 << 20)
    try:
        head = _load_head(text) if text.startswith("---") else None
    except (yaml.YAMLError, PyrafuseError):
        return ()
    found = [*_class_labels(head)]
    names = found[0] if len(found) == 1 else {}
    try:
        numbered = {int(number): str(name) for number, name in names.items()}
    except ValueError:
        return ()
    return tuple(numbered[i] for i in range(len(numbered))) if set(numbered) == set(range(len(numbered))) else ()


def _class_labels(value: Any, depth: int = 0) -> list[dict[Any, Any]]:
    """The names of every class label in a card."""
    if depth > 12:
        return []
    if isinstance(value, dict):
        names = value["class_label"].get("names") if isinstance(value.get("class_label"), dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        return [names] if isinstance(names, dict) else [n for v in value.values() for n in _class_labels(v, depth + 1)]
    return [n for v in value for n in _class_labels(v, depth + 1)] if isinstance(value, list) else []


def _faulty(file: Path, line: int, what: str) -> Problem:
    return Problem("error", "malformed line", file, f"line {line}", what, "left out; correct the line")


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0
