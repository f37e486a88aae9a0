"""Looking around in the folder of a data set: which files there are, which split they belong to, where images lie."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyrafuse.core.errors import DataError
from pyrafuse.data.images import IMAGE_SUFFIXES

MAX_DEPTH = 6
MAX_FILES = 3_000_000

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "trainval": "trainval",
}
"""What the splits are called out there -> here."""

CLASS_FILES = ("classes.txt", "labels.txt", "obj.names", "names.txt")
"""Files, at the top or in labels/, that list the classes of layouts which do not."""

_FOLDER_WORDS = {
    "images", "image", "img", "imgs", "jpegimages", "labels", "label", "annotations", "annotation", "data", "set",
    "split",
}  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """The files below a folder, hidden ones apart, `MAX_DEPTH` folders deep; walked once, when first asked for."""

    root: Path

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every file, in sorted order.

        Raises:
            DataError: If there are more than `MAX_FILES`.
        """
        found: list[str] = []
        for folder, names in _walk(self.root, 0, set()):
            found.extend(os.path.join(folder, name) for name in names)
            if len(found) > MAX_FILES:
                raise DataError(
                    f"{self.root} holds more than {MAX_FILES:,} files; name the data set's own folder, or its "
                    "annotation file"
                )
        return tuple(map(Path, sorted(found)))  # to compare texts is far quicker than to compare paths

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The files that are named like images."""
        return self.named(*IMAGE_SUFFIXES)

    def named(self, *suffixes: str) -> tuple[Path, ...]:
        """The files with one of ``suffixes`` (lower case, with the dot)."""
        return tuple(path for path in self.files if path.suffix.lower() in suffixes)


def _walk(folder: Path, depth: int, seen: set[str]) -> Iterator[tuple[str, list[str]]]:
    real = os.path.realpath(folder)
    if real in seen:  # links may lead in circles
        return
    seen.add(real)
    names, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            (folders if entry.is_dir() else names).append(entry.name)
    yield os.fspath(folder), names
    if depth < MAX_DEPTH:
        for name in sorted(folders):
            yield from _walk(folder / name, depth + 1, seen)


def split_of_file(stem: str) -> str:
    """The split that a file's name speaks of: ``instances_val2017`` is ``val``; empty if none or several."""
    found = {SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", stem.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def split_of_folder(folder: Path, root: Path) -> str:
    """The split that ``folder`` belongs to by a name on its way down from ``root``; empty if none.

    Only folders named after nothing but a split count: ``val2017``, ``train_images``, not ``train-station``.
    """
    for name in reversed(folder.relative_to(root).parts):
        words = set(re.findall(r"[a-z]+", name.lower())) - _FOLDER_WORDS
        if len(words) == 1 and (word := words.pop()) in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return ""


class ImageFinder:
    """Finds images by the names that annotations give them.

    Args:
        folders: Where to look first, the likeliest first.
        tree: Where to look for the bare name if all of those fail.
    """

    def __init__(self, folders: Sequence[Path], tree: Tree) -> None:
        self.folders = tuple(dict.fromkeys(folders))
        self._tree = tree
        self._likeliest = [os.fspath(folder) for folder in self.folders]

    def find(self, name: str) -> Path | None:
        """The image called ``name``: a path relative to one of the folders, or a bare name, with or without suffix."""
        name = name.replace("\\", "/")
        for folder in self._likeliest:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                if folder != self._likeliest[0]:  # the next one most likely lies there too
                    self._likeliest.remove(folder)
                    self._likeliest.insert(0, folder)
                return Path(path)
        found = self._by_name.get(os.path.basename(name), ())
        if len(found) > 1:  # a name used in several folders: only the one that lies as it was given
            found = [path for path in found if path.as_posix().endswith(f"/{name.lstrip('./')}")]
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self._tree.images:
            found[path.name].append(path)
            found[path.stem].append(path)
        return found


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: If it is in another encoding or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path} is no text in UTF-8: byte {byte:#04x} at position {error.start:,}; save it in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from error


def read_class_names(root: Path) -> tuple[str, ...]:
    """The class names, a line each, of the first of `CLASS_FILES` below ``root``; empty if there is none.

    Raises:
        DataError: If it cannot be read.
    """
    for folder in (root, root / "labels"):
        for name in CLASS_FILES:
            path = folder / name
            if path.is_file():
                return tuple(filter(None, map(str.strip, read_text(path).splitlines())))
    return ()
