"""What a YOLO data set lists: data.yaml, Darknet's obj.data, or folders -> the images of each split + class names."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.reading import IMAGE_SUFFIXES
from pyrafuse.base.paths import expand_user
from pyrafuse.base.printable import printable
from pyrafuse.base.strict_yaml import BoundedLoader
from pyrafuse.data.formats.yolo_labels import find_labels, label_folders
from pyrafuse.data.reading.class_lists import ClassList, agree, find_class_lists, join_class_lists
from pyrafuse.data.reading.documents import number_classes
from pyrafuse.data.reading.finding import Found, image_finder
from pyrafuse.data.reading.folders import SPLIT_WORDS, Tree, follow, read_text, split_of_folder
from pyrafuse.data.reading.names import split_name
from pyrafuse.data.reading.passed_over import count_suffixes
from pyrafuse.data.reading.problems import Problem

SUFFIXES = (".yaml", ".yml", ".data")
"""Of the files that describe a data set."""


@dataclass(frozen=True)
class YOLOFolder:
    """A whole YOLO data set.

    Attributes:
        splits: The images of each split; ``""`` where nothing names one.
        names: The classes; empty where nothing names them.
        file: The data.yaml or obj.data, or the folder.
        num_keypoint_values: How many values follow each box and are keypoints: 51 for 17 of x, y and visibility.
        found: What the lookup of each image gave that a list names.
        problems: What was wrong with the folders and lists that are named.
    """

    splits: Mapping[str, tuple[Path, ...]]
    names: tuple[str, ...]
    file: Path
    num_keypoint_values: int = 0
    found: Mapping[Path, Found] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def find_list(tree: Tree, depths: Sequence[int] = (0,)) -> Path | None:
    """The data.yaml or obj.data of a folder, whatever they are called: a file that names classes and a training split.

    Args:
        tree: The files.
        depths: How many folders below the root to look; the first depth with such a file counts.

    Raises:
        DataError: If a data.yaml is damaged, or folders below the root hold several data sets.
    """
    for depth in depths:
        found = [path for path, content in _descriptions(tree, depth) if "train" in content]
        if depth and len({path.parent for path in found}) > 1:
            raise DataError(f"{tree.root} holds {len(found)} data sets; name one of {', '.join(map(str, found))}")
        if found:
            return found[0]
    return None


def find_yolo(tree: Tree) -> YOLOFolder | None:
    """The images of a folder without data.yaml, or None if no image has a label file.

    The classes are those of classes.txt and its like, else of a data.yaml that names no split.

    Raises:
        DataError: If the file that names the classes is damaged.
    """
    splits: dict[str, list[Path]] = defaultdict(list)
    for image in tree.images:
        splits[split_of_folder(image.parent, tree.root)].append(image)
    if not any(found.path for found in find_labels(tree.images)):
        return None
    lists, num_values = find_class_lists(tree.root, _folders_of(tree.images), are_numbered=True), 0
    for path, content in (item for depth in (0, 1, 2) for item in _descriptions(tree, depth)):
        if path.stem == "data":  # other files with that key may be some other tool's
            lists.append(ClassList(path, _names_of(content, path)))
            num_values = _num_keypoint_values(content, path)
            break
    names = join_class_lists(lists)
    return YOLOFolder({split: tuple(images) for split, images in splits.items()}, names, tree.root, num_values)


def read_list(path: Path) -> YOLOFolder:
    """Read a data.yaml (``names``, ``train``, ``val``, ``test`` and the ``path`` they start from) or an obj.data.

    Each split is a folder, a list file, an image, or several of these. An obj.data has a line for each of ``train``,
    ``valid`` and ``names``, which is a file with a name a line.

    Raises:
        DataError: If it cannot be read or says nothing of the training images, or a folder that it names is absent.
    """
    content = _load(path)
    if not isinstance(content, dict) or not content.get("train"):
        raise DataError(f"{path} names no training images; it needs the keys train, val and names")
    bases = [path.parent]
    if content.get("path"):
        given = expand_user(str(content["path"]))
        bases = [path.parent / given, given, path.parent]
    splits, found, problems, tree = {}, {}, [], Tree(path.parent)
    for key, entry in content.items():
        if key in SPLIT_WORDS and entry:
            try:
                places = [_find_place(str(item), bases, path, key) for item in _as_list(entry)]
            except DataError:
                if SPLIT_WORDS[key] == "test":  # often named and seldom there
                    continue
                raise
            problems += [problem for _, problem in places if problem]
            problems += [
                _no_images(place, path, key) for place, _ in places if place.is_dir() and not Tree(place).images
            ]
            problems += [_empty_list(place, path, key) for place, _ in places if place.is_file() and _is_blank(place)]
            images = [image for place, _ in places for image in _images_at(place, bases, SPLIT_WORDS[key], tree)]
            splits[SPLIT_WORDS[key]] = tuple(dict.fromkeys(image for image, _ in images))
            found.update({image: item for image, item in images if item is not None})
    own = ClassList(path, _names_of(content, path))
    folders = _folders_of([image for images in splits.values() for image in images])
    problems += [
        Problem("warning", "lists of classes disagree", item.file, "",
                f"it lists {', '.join(item.names[:10])}; {path} lists {', '.join(own.names[:10])}",
                f"those of {path.name} are used; correct or remove the list that is wrong")
        for item in find_class_lists(path.parent, folders) if not agree(item, own)
    ]  # fmt: skip
    return YOLOFolder(splits, own.names, path, _num_keypoint_values(content, path), found, tuple(problems))


def _folders_of(images: Sequence[Path]) -> list[Path]:
    """The folders of the images and those of their labels."""
    folders = dict.fromkeys(image.parent for image in images)
    return list(dict.fromkeys(place for folder in folders for place in (folder, *label_folders(folder))))


def _descriptions(tree: Tree, depth: int) -> Iterable[tuple[Path, Mapping[Any, Any]]]:
    """The files ``depth`` folders below the root that name classes, and what stands in them."""
    if depth:
        paths = [path for path in tree.named(*SUFFIXES) if len(path.relative_to(tree.root).parts) == depth + 1]
    else:  # spares a walk through all images
        paths = sorted(path for path in tree.root.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    for path in paths:
        try:
            content = _load(path)
        except DataError:
            if path.stem in {"data", "obj"} and not depth:
                raise
            continue  # some other tool's file
        if isinstance(content, dict) and ("names" in content or {"nc", "train"} <= content.keys()):
            yield path, content


def _load(path: Path) -> Any:
    text = read_text(path)
    if path.suffix.lower() == ".data":  # Darknet's: a line KEY = VALUE each
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        content: dict[str, Any] = {key.strip(): value.strip() for key, _, value in pairs}
        if "names" in content:
            file, _ = _find_place(content["names"], [path.parent], path, "names")
            content["names"] = list(filter(None, map(str.strip, read_text(file).splitlines())))
        return _with_plain_keys(content)
    try:
        return _with_plain_keys(yaml.load(text, Loader=BoundedLoader))
    except (yaml.YAMLError, PyrafuseError) as error:
        reason = " ".join(str(error).split())
        hint = "; write paths with / or in single quotes, not with \\ in double quotes" if "escape" in reason else ""
        raise DataError(f"{path} is no YAML that can be read: {reason}{hint}") from error


def _with_plain_keys(content: Any) -> Any:
    """The same with keys in lower case, and training images under ``train``: CVAT's are called as its subsets are."""
    if not isinstance(content, dict):
        return content
    plain = {key.casefold() if isinstance(key, str) else key: value for key, value in content.items()}
    return {"train" if key == "training" and "train" not in plain else key: value for key, value in plain.items()}


def _as_list(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def _no_images(place: Path, file: Path, key: str) -> Problem:
    held = count_suffixes(Tree(place).files) or "nothing"
    return Problem("error", "no images in a folder", file, key, f"{place} holds no image that is read, but {held}",
                   "put the images there, or correct the entry")  # fmt: skip


def _is_blank(place: Path) -> bool:
    return place.suffix.lower() not in IMAGE_SUFFIXES and not read_text(place).strip()


def _empty_list(place: Path, file: Path, key: str) -> Problem:
    return Problem("error", "empty list", file, key, f"{place} lists no image", "name the images there, a line each")


def _spellings(entry: str) -> tuple[str, ...]:
    # Roboflow writes ../train/images and means train/images; CVAT writes data/train.txt and means train.txt
    return tuple(dict.fromkeys((entry, entry.removeprefix("../"), entry.removeprefix("data/"))))


def _find_place(entry: str, bases: Sequence[Path], file: Path, key: str) -> tuple[Path, Problem | None]:
    """The folder or list that ``entry`` names, and a warning where it is only the end of the entry that leads there."""
    tried = list(dict.fromkeys(base / text for base in bases for text in _spellings(entry)))
    for place in tried:
        if os.path.exists(place):  # of a name that is too long there is no file
            return place, None
    parts = split_name(entry)
    for start in range(len(parts)):
        for base in dict.fromkeys(bases):
            place = follow(base, parts[start:])
            if place is not None:
                problem = Problem(
                    "warning", "place found by the end of its path", file, key, f"{entry} is not there; {place} is",
                    "used; check that it is the right one, or correct the entry",
                )  # fmt: skip
                return place, problem if start else None
    raise DataError(
        f"{file} gives {printable(repr(entry), limit=200)} as {key}, but there is no "
        f"{' and no '.join(printable(place, limit=300) for place in tried)}; correct path or the entry"
    )


def _images_at(place: Path, bases: Sequence[Path], split: str, tree: Tree) -> list[tuple[Path, Found | None]]:
    if place.is_dir():
        return [(image, None) for image in Tree(place).images]
    if place.suffix.lower() in IMAGE_SUFFIXES:
        return [(place, None)]
    lines = list(filter(None, map(str.strip, read_text(place).splitlines())))
    folders = [place.parent, *bases]
    found = image_finder(folders, tree, split).find_all([_spellings(line) for line in lines])
    return [(item.path or place.parent / line, item) for line, item in zip(lines, found, strict=True)]


def _names_of(content: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    names, num_classes = content.get("names"), _whole(content.get("nc"))
    if not isinstance(names, list | dict | None):
        raise DataError(f"{path} gives {names!r} as names; write a list, [{names}]")
    if isinstance(names, dict):
        numbered = {_whole(number): name for number, name in names.items()}
        if set(numbered) != set(range(len(names))):
            absent = sorted(set(range(len(names))) - set(numbered))
            raise DataError(
                f"{path} numbers its classes {sorted(names, key=str)}, without {', '.join(map(str, absent))}; number "
                f"them 0 to {len(names) - 1}, and the labels with them, or name the classes between"
            )
        names = [numbered[i] for i in range(len(names))]
    if isinstance(names, list) and names:
        for name in names:
            if not isinstance(name, str | int) or isinstance(name, bool):
                raise DataError(
                    f"{path} has the class name {name!r}, which YAML takes for a {type(name).__name__} (so it does "
                    "with yes, no, on, off and dates); put names in quotes"
                )
        if num_classes is not None and num_classes != len(names):
            raise DataError(f"{path} names {len(names)} classes, but its nc is {content['nc']}; correct one of them")
        return tuple(map(str, names))
    if isinstance(num_classes, int) and num_classes > 0:
        return number_classes(num_classes, path)
    raise DataError(f"{path} names no classes; add names, a list with one name a class")


def _num_keypoint_values(content: Mapping[Any, Any], path: Path) -> int:
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise DataError(f"{path} gives {shape!r} as kpt_shape; write two numbers, [keypoints, values of each]")
    return shape[0] * shape[1]


def _whole(value: Any) -> Any:
    """``value`` as a whole number where it is spelt like one."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}\s*", value) else value
