"""Where the label files of YOLO's images lie: images -> folders of labels -> a text for each, and texts left over."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyrafuse.base.images.reading import IMAGE_SUFFIXES
from pyrafuse.data.reading.finding import FileFinder, Found, say_rule
from pyrafuse.data.reading.folders import (
    CLASS_FILES,
    IMAGE_FOLDERS,
    PICTURE_SUFFIXES,
    follow,
    is_label_file,
    subfolders,
)
from pyrafuse.data.reading.names import RULES, spell
from pyrafuse.data.reading.problems import Problem
from pyrafuse.data.reading.rules import ReadingRules

_TEXTS = frozenset({".txt"})
_LABEL_FOLDERS = ("labels", "label")


def expected_labels(image: Path) -> tuple[Path, ...]:
    """Where the labels of ``image`` belong, to be told: in labels/ in the place of the last images/, or beside it."""
    beside = image.with_suffix(".txt")
    parts = beside.parts
    for i in range(len(parts) - 2, -1, -1):
        if parts[i].casefold() in IMAGE_FOLDERS:
            return Path(*parts[:i], "labels", *parts[i + 1 :]), beside
    return beside, beside.parent / "labels" / beside.name


def label_folders(folder: Path) -> list[Path]:
    """The folders where labels of the images in ``folder`` may lie, the likeliest first; all are there.

    In the last folder on the way that is called images, JPEGImages or the like, labels/ takes its place, whatever the
    capitals; then come ``folder`` itself and labels/ in it. Links are looked behind last.
    """
    found = _label_folders(folder)
    real = Path(os.path.realpath(folder))
    return list(dict.fromkeys([*found, *(_label_folders(real) if real != folder.absolute() else ())]))


def _label_folders(folder: Path) -> list[Path]:
    found = []
    parts = folder.parts
    for i in range(len(parts) - 1, -1, -1):
        words = _label_words(parts[i])
        if words:
            for place in subfolders(Path(*parts[:i])):
                inside = follow(place, parts[i + 1 :]) if place.name.casefold() in words else None
                found += [inside] if inside is not None and inside.is_dir() else []
            if parts[i].casefold() in IMAGE_FOLDERS:
                break
    return [*found, folder, *(place for place in subfolders(folder) if place.name.casefold() in _LABEL_FOLDERS)]


def _label_words(name: str) -> tuple[str, ...]:
    """What a folder of labels is called that belongs to the folder ``name`` of images, in lower case."""
    name = name.casefold()
    if name in IMAGE_FOLDERS:
        return _LABEL_FOLDERS
    swapped = re.sub(r"(?<![a-z])image(s?)(?![a-z])", r"label\1", name)
    return (swapped, swapped.replace("label", "labels")) if swapped != name else ()


def find_labels(images: Sequence[Path]) -> list[Found]:
    """The label file of each image; one without has none, and so has one that is not there."""
    rows_of: dict[Path, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image.parent].append(row)
    found: dict[int, Found] = {}
    for folder, rows in rows_of.items():
        places = label_folders(folder)
        finder = FileFinder(places, lambda places=places: _texts_in(places), split="", root=folder, suffixes=_TEXTS)
        names = [[f"{images[row].stem}.txt"] for row in rows]
        found.update(zip(rows, finder.find_all(names), strict=True))
    for row, item in found.items():  # a link to an image elsewhere, whose label lies there
        if item.path is None and images[row].is_symlink():
            target = Path(os.path.realpath(images[row]))
            paths = (place / f"{target.stem}.txt" for place in label_folders(target.parent))
            path = next(filter(Path.is_file, paths), None)
            found[row] = Found(path, item.name) if path else item
    return [found[row] for row in range(len(images))]


def tell_labels(found: Sequence[Found], file: Path) -> list[Problem]:
    """Problems of label files that are not named as their image, or that fit several images."""
    problems = []
    by_rule: dict[int, list[Found]] = defaultdict(list)
    for item in found:
        if item.path is not None and item.rule:
            by_rule[item.rule].append(item)
        elif item.is_ambiguous:
            problems.append(
                Problem("error", "ambiguous label file", file, item.name, item.fault,
                        "left out; call the label file as its image is called")
            )  # fmt: skip
    for rule, items in sorted(by_rule.items()):
        problems.append(
            Problem("warning", f"label file found by {say_rule(rule)}", file, "",
                    f"{len(items)} label files; the first is {items[0].path}, taken for {items[0].name!r}",
                    "used; check that these are the right ones, or call them as their images are called")
        )  # fmt: skip
    return problems


def find_orphans(images: Iterable[Path], labels: Iterable[Found], rules: ReadingRules) -> list[Problem]:
    """Tell of label files, in the folders where those of ``images`` lie, whose own image is not there.

    Args:
        images: The images of a split.
        labels: Their label files.
        rules: How lenient reading is.
    """
    used = {item.path for item in labels}
    image_folders: dict[Path, set[Path]] = defaultdict(set)  # of each folder of labels
    for folder in {image.parent for image in images}:
        for place in _label_folders(folder):
            image_folders[place].add(folder)
    problems = []
    for place, folders in sorted(image_folders.items()):
        pictures = [name for folder in sorted(folders) for name in _names_in(folder, PICTURE_SUFFIXES)]
        unread = {Path(name).stem: name for name in pictures if Path(name).suffix.lower() not in IMAGE_SUFFIXES}
        stems = {_key(Path(name).stem) for name in pictures if Path(name).suffix.lower() in IMAGE_SUFFIXES}
        listed = " or ".join(sorted(map(str, folders)))
        for name in _names_in(place, _TEXTS):
            path = place / name
            if path in used or _key(path.stem) in stems or name.casefold() in CLASS_FILES or not is_label_file(path):
                continue
            other = f"; {unread[path.stem]} is there, but is not read" if path.stem in unread else ""
            problems.append(
                Problem("error", "missing image", path, "", f"no image called {path.stem} lies in {listed}{other}",
                        "left out; put it there, delete the label file, or leave such images out by --missing skip")
            )  # fmt: skip
    if rules.missing == "skip" and problems:
        return [
            Problem("warning", "missing images", problems[0].file.parent, "",
                    f"{len(problems)} label files have no image; the first is {problems[0].file.name}",
                    "left out, as --missing skip asks")
        ]  # fmt: skip
    return problems


def _key(stem: str) -> str:
    return spell(f"{stem}.txt", len(RULES) - 1, _TEXTS)


def _texts_in(folders: Iterable[Path]) -> list[str]:
    return [os.path.join(folder, name) for folder in folders for name in _names_in(folder, _TEXTS)]


def _names_in(folder: Path, suffixes: frozenset[str]) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in suffixes)
