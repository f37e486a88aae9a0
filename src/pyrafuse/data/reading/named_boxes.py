"""The short way to a split for formats of one box an entry: image name, class name, four numbers -> `Reading`."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyrafuse.base.errors import same_but_for_case
from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.assembling import assemble
from pyrafuse.data.reading.finding import image_finder
from pyrafuse.data.reading.folders import IMAGE_FOLDERS, Tree, split_of_file, subfolders
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import BOX, PIXEL_CORNERS, ObjectTable


@dataclass(frozen=True)
class NamedBox:
    """An object as a file has it.

    Attributes:
        image: Name of its image, as it stands there.
        name: Its class.
        box: Four numbers, as they stand there.
        record: The place in the file, ``line 3`` say.
        source: `BOX`, or `OUTLINE` or `ROTATED` for corners in the unit of the others.
        angle: Radians by which the box is rotated about its centre.
        is_aside: Whether it counts neither as found nor as missed.
        area: Its own area in pixels; NaN for that of its box.
    """

    image: str
    name: str
    box: Sequence[float]
    record: str
    source: int = BOX
    angle: float = 0.0
    is_aside: bool = False
    area: float = math.nan


@dataclass(frozen=True)
class NamedImage:
    """An image as a file has it.

    Attributes:
        name: Name by which the objects refer to it.
        width: Width in pixels; 0 where the file does not say.
        height: Height in pixels; 0 where the file does not say.
        spellings: What it may be called, the likeliest first; its name where there are none.
        file: The file of its annotations, where that is not the one of the split.
        image_id: Its id, where it has one.
    """

    name: str
    width: int = 0
    height: int = 0
    spellings: tuple[str, ...] = ()
    file: Path | None = None
    image_id: int | str | None = None


def read_named_boxes(
    objects: Sequence[NamedBox],
    *,
    file: Path,
    tree: Tree,
    split: str | None = None,
    names: Sequence[str] = (),
    images: Iterable[NamedImage] = (),
    written: BoxFormat = PIXEL_CORNERS,
    rules: ReadingRules = DEFAULT_RULES,
    unkept: Mapping[str, int] | None = None,
) -> Reading:
    """Find the images, beside ``file`` and then in ``tree``, and judge the boxes as every format does.

    Args:
        objects: What the file lists.
        file: The file of annotations.
        tree: All files of the data set.
        split: The split: images of other splits' folders are not taken. By default that of the file's name.
        names: The classes; by default those that occur, sorted.
        images: Images that may hold no object, or of which more is known than their name.
        written: What the four numbers of a box are.
        rules: How lenient reading is.
        unkept: What else the file holds, counted; see `Reading`.

    Raises:
        DataError: If the boxes as a whole look like something else than they are taken for.
    """
    names = tuple(names) or tuple(sorted({item.name for item in objects}))
    label_of = {name: label for label, name in enumerate(names)}
    listed = {image.name: image for image in images}
    for item in objects:
        listed.setdefault(item.image, NamedImage(item.image))
    problems = [
        Problem("error", "unknown class", listed[item.image].file or file, item.record,
                f"{item.name!r} is none of the {len(names)} classes{same_but_for_case([item.name], names)}",
                "left out; correct the name or add it to the list of classes")
        for item in objects if item.name not in label_of
    ]  # fmt: skip
    row_of = {image: row for row, image in enumerate(listed)}
    split = split_of_file(file.stem) if split is None else split
    folders = [f for f in subfolders(file.parent) if f.name.casefold() in IMAGE_FOLDERS]
    found = image_finder([file.parent, *folders], tree, split).find_all(
        [list(image.spellings or (image.name,)) for image in listed.values()]
    )
    kept = [item for item in objects if item.name in label_of]
    table = ObjectTable(
        rows=np.array([row_of[item.image] for item in kept], np.int64),
        boxes=np.array([item.box for item in kept], np.float64).reshape(-1, 4),
        labels=np.array([label_of[item.name] for item in kept], np.int64),
        crowd=np.array([item.is_aside for item in kept], np.bool_),
        areas=np.array([item.area for item in kept], np.float64),
        record_of=lambda row: kept[row].record,
        written=written,
        sources=np.array([item.source for item in kept], np.int8),
        angles=np.array([item.angle for item in kept], np.float64),
    )
    entries = [
        ListedImage(
            path=item.path or file.parent / name,
            image_id=row if image.image_id is None else image.image_id,
            width=image.width,
            height=image.height,
            file=image.file or file,
            record="" if image.file else f"image {name}",
            found=item,
        )
        for row, ((name, image), item) in enumerate(zip(listed.items(), found, strict=True))
    ]
    records, box_problems = assemble(entries, table, rules=rules)
    data = DetectionData(records, names, tuple(range(len(names))), "", split)
    return Reading(
        data, tuple(problems + box_problems), unkept={what: count for what, count in (unkept or {}).items() if count}
    )


def tell_without_box(counts: Counter[str], file: Path, record: str = "") -> list[Problem]:
    """A warning that counts what was drawn and has no box, points and lines say, by kind; none where there is none."""
    if not counts:
        return []
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return [
        Problem("warning", "annotations without a box", file, record, f"{listed}",
                "left out; draw boxes or outlines around them if they are objects to be found")
    ]  # fmt: skip
