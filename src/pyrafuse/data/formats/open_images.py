"""Open Images: a CSV a split, boxes as shares of the image, classes by number; rows -> named boxes -> records.

Kuznetsova et al., "The Open Images Dataset V4", arXiv:1811.00982.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.documents import read_head, read_table
from pyrafuse.data.reading.folders import Tree, split_of_file, split_of_folder
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.named_boxes import NamedBox, read_named_boxes
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import is_set

_WRITTEN = BoxFormat("shares", "corners")
_NEEDED = ("imageid", "labelname", "xmin", "ymin", "xmax", "ymax")
_MARKS = ("isoccluded", "istruncated", "isdepiction", "isinside")


@FORMATS.register("open_images")
class OpenImagesFormat(AnnotationFormat):
    """Open Images' boxes, told by the titles of the columns."""

    title = "Open Images CSV"
    looked_for = "Open Images CSV (train-annotations-bbox.csv and class-descriptions-boxable.csv)"
    rank = 70
    set_aside = ("groups (IsGroupOf 1)", "if they are single objects, set IsGroupOf to 0")

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), {"": [file]}) if _is_boxes(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        splits: dict[str, list[Path]] = {}
        for path in filter(_is_boxes, tree.named(".csv")):
            splits.setdefault(split_of_file(path.stem) or split_of_folder(path.parent, tree.root), []).append(path)
        return _data_set(tree.root, tree, splits) if splits else None


def _is_boxes(path: Path) -> bool:
    head = read_head(path).partition("\n")[0] if path.suffix.lower() == ".csv" else ""
    return set(_NEEDED) <= {title.strip().casefold() for title in head.split(",")}


def _data_set(path: Path, tree: Tree, splits: Mapping[str, Sequence[Path]]) -> DataSet:
    names = read_names(tree)
    return DataSet(path, {s: partial(read_files, files, s, names, tree) for s, files in splits.items()}, tree)


def read_names(tree: Tree) -> dict[str, str]:
    """The name of each class number, ``/m/01g317``, by the files of class descriptions; empty where there is none."""
    names: dict[str, str] = {}
    for path in tree.named(".csv"):
        first = read_head(path).lstrip("\ufeff").partition("\n")[0]
        if first.startswith(("/m/", "/g/", "/t/")) or first.casefold().startswith("labelname,displayname"):
            names.update({row[0]: row[1] for _, row in read_table(path) if len(row) == 2 and row[0].startswith("/")})
    return names


def read_files(
    files: Sequence[Path], split: str, names: Mapping[str, str], tree: Tree, rules: ReadingRules = DEFAULT_RULES
) -> Reading:
    """Read the files of a split; the name of an image has no suffix there.

    Raises:
        DataError: If a file is no table.
    """
    return join_readings([_read_file(file, split, names, tree, rules) for file in files])


def _read_file(file: Path, split: str, names: Mapping[str, str], tree: Tree, rules: ReadingRules) -> Reading:
    rows = read_table(file)
    titles = next(rows, (0, []))[1]
    rank_of = {title.casefold(): rank for rank, title in enumerate(titles)}
    if not set(_NEEDED) <= rank_of.keys():
        raise DataError(f"{file} lacks a column of {', '.join(_NEEDED)}; download it anew")
    image, label, *corners = (rank_of[title] for title in _NEEDED)
    objects: list[NamedBox] = []
    problems: list[Problem] = []
    unkept = Counter[str]()
    marks = [rank_of[title] for title in _MARKS if title in rank_of]
    for line, row in rows:
        try:
            box = [float(row[rank]) for rank in corners]
            if not all(map(math.isfinite, box)) or len(row) < len(titles):
                raise ValueError
        except (ValueError, IndexError):
            problems.append(
                Problem("error", "malformed line", file, f"line {line}",
                        f"{','.join(row)[:80]} has not four numbers, or lacks fields",
                        "left out; correct the line")
            )  # fmt: skip
            continue
        is_group = "isgroupof" in rank_of and is_set(row[rank_of["isgroupof"]])
        unkept["marks of objects (occluded, truncated ...)"] += any(is_set(row[rank]) for rank in marks)
        objects.append(NamedBox(row[image], names.get(row[label], row[label]), box, f"line {line}", is_aside=is_group))
    reading = read_named_boxes(objects, file=file, tree=tree, split=split, written=_WRITTEN, rules=rules, unkept=unkept)
    if bare := [name for name in reading.data.names if name.startswith("/")]:
        problems.append(
            Problem("note", "classes without names", file, "",
                    f"{len(bare)} classes are called by their numbers, {', '.join(bare[:5])}",
                    "put class-descriptions-boxable.csv beside the file")
        )  # fmt: skip
    return Reading(reading.data, (*problems, *reading.problems), unkept=reading.unkept)
