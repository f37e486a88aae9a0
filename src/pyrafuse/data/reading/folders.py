"""Looking around in the folder of a data set: which files there are, which split they belong to, where images lie."""

import codecs
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import check_file, list_files
from pyrafuse.base.images.reading import IMAGE_SUFFIXES
from pyrafuse.data.reading.names import spell_folder

UNREAD_SUFFIXES = (
    frozenset({
        ".heic", ".heif", ".hif", ".avif", ".gif", ".jp2", ".j2k", ".jpx", ".jxl", ".jxr", ".jfif", ".jpe",
        ".jif", ".jfi", ".pjpeg", ".apng", ".mpo", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dds", ".psd",
        ".svg", ".ico", ".exr", ".hdr", ".dib", ".pcx", ".eps", ".raw", ".dng", ".cr2", ".cr3", ".nef",
        ".arw", ".orf", ".rw2", ".raf", ".dcm", ".npy",
    })
    - IMAGE_SUFFIXES
)  # fmt: skip
"""Suffixes, in lower case, of pictures that are not read."""

PICTURE_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES
"""Suffixes, in lower case, of all that is a picture by its name."""

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

CLASS_FILES = (
    "classes.txt", "labels.txt", "obj.names", "names.txt", "class_names.txt", "_darknet.labels",
)  # fmt: skip
"""Files, in lower case, that list the classes of layouts which do not."""

IMAGE_FOLDERS = ("images", "image", "jpegimages", "imgs", "img")
"""Folders that are named after the images in them, in lower case."""

ANNOTATION_FOLDERS = ("annotations", "annotation")
"""Folders that are named after the annotations in them, in lower case."""

_FOLDER_WORDS = {
    "images", "image", "img", "imgs", "jpegimages", "labels", "label", "annotations", "annotation", "data", "set",
    "split", "obj",
}  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """The files below a folder, hidden ones apart; walked once, when first asked for.

    A link to a folder is followed once, and as often as there are splits: ``train`` and ``val`` may be links to one
    folder. A link to a folder that holds the root is not followed.
    """

    root: Path

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """Every file, in sorted order.

        Raises:
            DataError: On the same faults as `list_files`.
        """
        return list_files(self.root, kind_of=lambda folder: split_of_folder(folder, self.root))

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """The files that are named like images."""
        return self.named(*IMAGE_SUFFIXES)

    def named(self, *suffixes: str) -> tuple[Path, ...]:
        """The files with one of ``suffixes`` (lower case, with the dot)."""
        return tuple(path for path in self.files if path.suffix.lower() in suffixes)


def split_of_file(stem: str) -> str:
    """The split that a file's name speaks of: ``instances_val2017`` is ``val``; empty if none or several."""
    found = {SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", stem.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def split_of_folder(folder: Path, root: Path) -> str:
    """The split that ``folder`` belongs to by a name on its way down from ``root``; empty if none.

    Only folders named after nothing but a split count: ``val2017``, ``train_images``, not ``train-station``.
    """
    return split_part_of(folder, root)[0]


def split_part_of(folder: Path, root: Path) -> tuple[str, int]:
    """The split of ``folder`` and how many folders up to the one that names it, itself included; or ``""`` and 0."""
    for depth, name in enumerate(reversed(folder.relative_to(root).parts), 1):
        words = set(re.findall(r"[a-z]+", name.lower())) - _FOLDER_WORDS
        if len(words) == 1 and (word := words.pop()) in SPLIT_WORDS:
            return SPLIT_WORDS[word], depth
    return "", 0


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, links to folders too, in sorted order; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def follow(base: Path, parts: Sequence[str]) -> Path | None:
    """What lies at ``parts`` below ``base``, capitals and the Unicode form apart; None if nothing does."""
    path = base
    for part in parts:
        place = path / part
        if not os.path.exists(place):
            try:
                alike = [name for name in os.listdir(path) if spell_folder(name) == spell_folder(part)]
            except OSError:
                return None
            if len(alike) != 1:
                return None
            place = path / alike[0]
        path = place
    return path if os.path.exists(path) else None


def decode(content: bytes, *, errors: str = "strict") -> str:
    """Text in UTF-8, or in UTF-16 where its byte order mark says so, as Windows writes it.

    Raises:
        UnicodeDecodeError: If it is in another encoding, and ``errors`` is strict.
    """
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig", errors)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        DataError: If it is in another encoding, no file at all, or cannot be read.
    """
    check_file(path)
    try:
        return decode(path.read_bytes())
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{path} is no text in UTF-8: byte {byte:#04x} at position {error.start:,}; save it in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from error


def is_label_file(path: Path) -> bool:
    """Whether the first line of a text has the numbers of an object; others lie beside images, too."""
    try:
        words = read_text(path).lstrip().partition("\n")[0].split()
        return len(words) >= 5 and all(map(math.isfinite, map(float, words)))
    except (DataError, ValueError):
        return False
