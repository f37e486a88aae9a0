"""Where images come to lie in a data set that is written: records -> names that no other image has -> places."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.reading.names import without_suffix
from pyrafuse.data.writing.layouts import PlacedSplit, Writing


def place_images(splits: Sequence[DetectionData], writing: Writing, *, refer: bool = False) -> tuple[PlacedSplit, ...]:
    """Give each image its place: its own name, or one with its folder before it where another image has that name.

    Two images of one folder differ in more than capitals and their suffix: their annotations are called as they are.

    Args:
        splits: What is to be written.
        writing: How.
        refer: Leave the images where they are, and name them by their path.
    """
    if refer:
        return tuple(
            PlacedSplit(data, tuple(Path(os.path.abspath(record.path)).as_posix() for record in data.records))
            for data in splits
        )
    taken: dict[str, set[str]] = {}
    placed = []
    for data in splits:
        folder = writing.folder_of(data.split)
        names = _name_all(data.records, taken.setdefault(folder, set()))
        placed.append(PlacedSplit(data, tuple(f"{folder}/{name}".lstrip("/") for name in names)))
    return tuple(placed)


def _name_all(records: Iterable[ImageRecord], taken: set[str]) -> list[str]:
    names = []
    for record in records:
        name = _choose(record.path, taken)
        taken.add(_key(name))
        names.append(name)
    return names


def _choose(path: Path, taken: set[str]) -> str:
    """The first free one of ``a.jpg``, ``FOLDER-a.jpg``, and so on up the path, then ``a-2.jpg``, ``a-3.jpg`` ..."""
    parts = path.parts
    for length in range(1, min(len(parts), 4)):
        name = "-".join(parts[-length:])
        if _key(name) not in taken:
            return name
    number = 2
    while _key(f"{path.stem}-{number}") in taken:
        number += 1
    return f"{path.stem}-{number}{path.suffix}"


def _key(name: str) -> str:
    return without_suffix(name).casefold()
