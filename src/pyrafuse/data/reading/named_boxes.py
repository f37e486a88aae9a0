"""The short way to a split for formats of one box an entry: image name, class name, four numbers -> `Reading`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrafuse.base.errors import same_but_for_case
from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.assembling import assemble
from pyrafuse.data.reading.finding import image_finder
from pyrafuse.data.reading.folders import Tree, split_of_file
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import PIXEL_CORNERS, ObjectTable


@dataclass(frozen=True)
class NamedBox:
    """An object as a file has it.

    Attributes:
        image: Name of its image, as it stands there.
        name: Its class.
        box: Four numbers, as they stand there.
        record: The place in the file, ``line 3`` say.
    """

    image: str
    name: str
    box: Sequence[float]
    record: str


def read_named_boxes(
    objects: Sequence[NamedBox],
    *,
    file: Path,
    tree: Tree,
    names: Sequence[str] = (),
    images: Iterable[str] = (),
    written: BoxFormat = PIXEL_CORNERS,
    rules: ReadingRules = DEFAULT_RULES,
) -> Reading:
    """Find the images, beside ``file`` and then in ``tree``, and judge the boxes as every format does.

    Args:
        objects: What the file lists.
        file: The file of annotations; where its name tells a split, images of other splits' folders are not taken.
        tree: All files of the data set.
        names: The classes; by default those that occur, sorted.
        images: Names of images that may hold no object.
        written: What the four numbers of a box are.
        rules: How lenient reading is.

    Raises:
        DataError: If the boxes as a whole look like something else than they are taken for.
    """
    names = tuple(names) or tuple(sorted({item.name for item in objects}))
    label_of = {name: label for label, name in enumerate(names)}
    problems = [
        Problem("error", "unknown class", file, item.record,
                f"{item.name!r} is none of the {len(names)} classes{same_but_for_case([item.name], names)}",
                "left out; correct the name or add it to the list of classes")
        for item in objects if item.name not in label_of
    ]  # fmt: skip
    listed = list(dict.fromkeys([*images, *(item.image for item in objects)]))
    row_of = {image: row for row, image in enumerate(listed)}
    split = split_of_file(file.stem)
    found = image_finder([file.parent], tree, split).find_all([[image] for image in listed])
    kept = [item for item in objects if item.name in label_of]
    table = ObjectTable(
        rows=np.array([row_of[item.image] for item in kept], np.int64),
        boxes=np.array([item.box for item in kept], np.float64).reshape(-1, 4),
        labels=np.array([label_of[item.name] for item in kept], np.int64),
        crowd=np.zeros(len(kept), np.bool_),
        areas=np.full(len(kept), np.nan),
        record_of=lambda row: kept[row].record,
        written=written,
    )
    entries = [
        ListedImage(item.path or file.parent / image, row, 0, 0, file, f"image {image}", item)
        for row, (image, item) in enumerate(zip(listed, found, strict=True))
    ]
    records, box_problems = assemble(entries, table, rules=rules)
    data = DetectionData(records, names, tuple(range(len(names))), "", split)
    return Reading(data, tuple(problems + box_problems))
