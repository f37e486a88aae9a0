"""Files that list the classes where annotations only number them: folders -> classes.txt and its like -> names."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import list_names
from pyrafuse.data.reading.folders import CLASS_FILES, IMAGE_FOLDERS, is_label_file, read_text, split_of_folder

_PREDEFINED = "predefined_classes.txt"
_NOTES = "notes.json"  # beside the classes.txt of Label Studio


@dataclass(frozen=True)
class ClassList:
    """A file that lists classes, and their names in order."""

    file: Path
    names: tuple[str, ...]


def find_class_lists(root: Path, folders: Iterable[Path], *, are_numbered: bool = False) -> list[ClassList]:
    """The files that list classes: beside images and labels, in the folders above these up to ``root``, and in it.

    Where ``root`` is a split's folder or one of images, they may lie beside it, too.

    Args:
        root: The folder of the data set.
        folders: Those of images and labels.
        are_numbered: Whether labels only number the classes. Then, in a folder without one of `CLASS_FILES`, a file
            that ends in ``.names`` is one, if it is the only such, and so is LabelImg's ``predefined_classes.txt``.

    Raises:
        DataError: If one cannot be read.
    """
    places = [root]
    if split_of_folder(root, root.parent) or root.name.casefold() in IMAGE_FOLDERS:
        places.append(root.parent)
    for folder in folders:
        inside = folder.is_relative_to(root)
        above = [parent for parent in folder.parents if parent.is_relative_to(root)] if inside else [folder.parent]
        places += [folder, *above]
    found = []
    for place in dict.fromkeys(places):
        entries = sorted(os.listdir(place)) if place.is_dir() else []
        known = {name for name in entries if name.casefold() in CLASS_FILES}
        if are_numbered and not known:
            others = {n for n in entries if n.casefold().endswith(".names") or n.casefold() == _PREDEFINED}
            known = others if len(others) == 1 else set()
        for name in entries:
            path, word = place / name, name.casefold()
            if name in known and path.is_file() and not is_label_file(path):
                found.append(ClassList(path, tuple(filter(None, map(str.strip, read_text(path).splitlines())))))
            elif word == _NOTES and path.is_file():
                found.append(ClassList(path, _read_notes(path)))
    return [item for item in found if item.names]


def join_class_lists(lists: Sequence[ClassList]) -> tuple[str, ...]:
    """The names that all ``lists`` agree on: the longest list, where the others are its beginning; empty for no list.

    Raises:
        DataError: If two of them disagree.
    """
    longest = max(lists, key=lambda item: len(item.names), default=None)
    if longest is None:
        return ()
    for item in lists:
        if not agree(item, longest):
            raise DataError(
                f"{longest.file} and {item.file} list different classes: {list_names(longest.names)}; and "
                f"{list_names(item.names)}; remove the one that is wrong"
            )
    return longest.names


def agree(one: ClassList, other: ClassList) -> bool:
    """Whether no number has two names."""
    return all(a == b for a, b in zip(one.names, other.names, strict=False))


def _read_notes(path: Path) -> tuple[str, ...]:
    """The classes of Label Studio's notes; empty if it is some other file."""
    try:
        categories = json.loads(read_text(path))["categories"]
        names = {int(category["id"]): str(category["name"]) for category in categories}
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(names[i] for i in range(len(names))) if set(names) == set(range(len(names))) else ()
