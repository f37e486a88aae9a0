"""CSV with a box a line, as of TensorFlow's object detection and Roboflow; rows -> named boxes -> records."""

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.documents import read_head, read_table
from pyrafuse.data.reading.folders import Tree, split_of_file, split_of_folder
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.named_boxes import NamedBox, NamedImage, read_named_boxes
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import PIXEL_CORNERS, is_set
from pyrafuse.data.writing.encoding import encode_split, spell_number
from pyrafuse.data.writing.layouts import ASIDE, FRACTIONS, PlacedSplit, Writing

_COLUMNS = {
    "image": (
        "filename",
        "file_name",
        "image",
        "image_name",
        "image_path",
        "path",
        "file",
        "img",
        "image_id",
        "imageid",
    ),
    "name": ("class", "class_name", "label", "label_name", "category", "name", "labels"),
    "x1": ("xmin", "x_min", "x1", "left", "x"),
    "y1": ("ymin", "y_min", "y1", "top", "y"),
    "x2": ("xmax", "x_max", "x2", "right"),
    "y2": ("ymax", "y_max", "y2", "bottom"),
    "w": ("w", "bbox_width", "box_width", "width"),
    "h": ("h", "bbox_height", "box_height", "height"),
    "width": ("image_width", "img_width", "width"),
    "height": ("image_height", "img_height", "height"),
    "difficult": ("difficult", "iscrowd"),
}
"""What a column may be called, in lower case."""

_CORNERS, _SIZES = ("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h")
_NUMBER = r"-?\d*\.?\d+(?:e-?\d+)?"
_BARE_ROW = re.compile(rf"[^,;\t]+\.\w+(?:[,;\t]{_NUMBER}){{4}}[,;\t][^,;\t]+|[^,;\t]+\.\w+[,;\t]{{5}}", re.IGNORECASE)


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    for split in splits:
        stream = io.StringIO(newline="")
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "difficult"))
        boxes = encode_split(split.data, PIXEL_CORNERS)
        for record, place, numbers in zip(split.data.records, split.places, boxes, strict=True):
            start = (place.rpartition("/")[2], record.width, record.height)
            objects = zip(record.labels.tolist(), numbers, record.crowd.tolist(), strict=True)
            rows = [(*start, split.data.names[k], *map(spell_number, box), int(aside)) for k, box, aside in objects]
            table.writerows(rows or [(*start, "", "", "", "", "", "")])
        yield f"{split.data.split}/_annotations.csv".lstrip("/"), stream.getvalue()


@FORMATS.register("csv")
class CSVFormat(AnnotationFormat):
    """CSV boxes, told by the titles of the columns, or by a first line of path, four numbers and class."""

    title = "CSV with a box a line"
    looked_for = "CSV boxes (filename,width,height,class,xmin,ymin,xmax,ymax)"
    rank = 80
    set_aside = ("difficult", "if they are to be found, set difficult to 0")
    writing = Writing(texts=_write, image_folder="{split}", keeps=frozenset({FRACTIONS, ASIDE}))

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), {"": [file]}) if _is_boxes(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        splits: dict[str, list[Path]] = {}
        for path in filter(_is_boxes, tree.named(".csv")):
            splits.setdefault(split_of_file(path.stem) or split_of_folder(path.parent, tree.root), []).append(path)
        return _data_set(tree.root, tree, splits) if splits else None


def _is_boxes(path: Path) -> bool:
    head = read_head(path).lstrip().partition("\n")[0].strip() if path.suffix.lower() == ".csv" else ""
    return bool(head) and (_columns(re.split(r"[,;\t]", head)) is not None or _BARE_ROW.fullmatch(head) is not None)


def _data_set(path: Path, tree: Tree, splits: Mapping[str, Sequence[Path]]) -> DataSet:
    return DataSet(path, {split: partial(read_files, files, split, tree) for split, files in splits.items()}, tree)


def read_files(files: Sequence[Path], split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read the files of a split; a line with an image and no box is an image without objects."""
    return join_readings([read_file(file, split, tree, rules) for file in files])


def read_file(file: Path, split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read one file.

    Raises:
        DataError: If it is no table, or has no row.
    """
    rows = read_table(file)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{file} is empty; export it anew")
    place_of = _columns(first[1])
    if place_of is None:
        place_of = {"image": 0, "x1": 1, "y1": 2, "x2": 3, "y2": 4, "name": 5}
        rows = iter([first, *rows])
    keys = _CORNERS if "x2" in place_of else _SIZES
    images: dict[str, NamedImage] = {}
    objects: list[NamedBox] = []
    problems: list[Problem] = []
    for line, row in rows:
        of = {key: row[place] if place < len(row) else "" for key, place in place_of.items()}
        if not of["image"]:
            problems.append(_faulty(file, line, "names no image"))
            continue
        images.setdefault(of["image"], NamedImage(of["image"], _whole(of.get("width")), _whole(of.get("height"))))
        if not any(of[key] for key in keys) and not of["name"]:
            continue
        numbers = [_number(of[key]) for key in keys]
        if not of["name"] or not all(map(math.isfinite, numbers)):
            what = "has no class" if not of["name"] else f"has {[of[key] for key in keys]} as box, not four numbers"
            problems.append(_faulty(file, line, what))
            continue
        objects.append(NamedBox(of["image"], of["name"], numbers, f"line {line}", is_aside=is_set(of.get("difficult"))))
    written = BoxFormat("pixels", "corners" if keys == _CORNERS else "sizes")
    reading = read_named_boxes(
        objects, file=file, tree=tree, split=split, images=images.values(), written=written, rules=rules
    )
    return Reading(reading.data, (*problems, *reading.problems), unkept=reading.unkept)


def _faulty(file: Path, line: int, what: str) -> Problem:
    return Problem("error", "malformed line", file, f"line {line}", f"it {what}", "left out; correct the line")


def _columns(titles: Sequence[str]) -> dict[str, int] | None:
    """The rank of each column that is known; None where a box, an image or a class is missing."""
    known = [title.strip().strip('"').casefold() for title in titles]
    found = {key: known.index(word) for key, words in _COLUMNS.items() for word in words[::-1] if word in known}
    if "x2" in found:  # width and height are those of the image then
        found.pop("w", None)
        found.pop("h", None)
    elif found.get("w") == found.get("width"):
        found.pop("width", None)
        found.pop("height", None)
    needed = {"image", "name", *(_CORNERS if "x2" in found else _SIZES)}
    return found if needed <= found.keys() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str | None) -> int:
    value = _number(text or "")
    return int(value) if 0 < value < 2**31 else 0
