"""Lists of Pascal VOC: ImageSets/Main/train.txt names a split's annotations, a line each -> the XML files meant."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pyrafuse.data.reading.finding import FileFinder, Found
from pyrafuse.data.reading.folders import PICTURE_SUFFIXES, SPLIT_WORDS, Tree, read_text, split_of_file
from pyrafuse.data.reading.names import has_suffix, split_name, without_suffix

_FLAG = re.compile(r"(?P<name>.*\S)\s+(?:-1|0|1)")
_XML = frozenset({".xml"})


def find_lists(tree: Tree) -> list[tuple[Path, str]]:
    """The lists of a data set, each with its split.

    Those named after a split count: Train.txt. Where a split has none of these, the lists of its classes do, such as
    cat_train.txt; where no list names a split, all together are the images without one.
    """
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in tree.named(".txt"):
        folder = path.parent
        if folder.name.casefold() == "imagesets" or (
            folder.name.casefold() == "main" and folder.parent.name.casefold() == "imagesets"
        ):
            by_folder[folder].append(path)
    found = []
    for paths in by_folder.values():
        of_splits: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            of_splits[split_of_file(path.stem)].append(path)
        if any(map(_is_plain, of_splits.get("trainval", ()))):  # a class may be called train, as one of VOC's is
            of_splits = {s: [p for p in ps if _is_plain(p) or not _is_marked(p)] for s, ps in of_splits.items()}
        for split, lists in of_splits.items():
            if split or len(of_splits) == 1:
                found += [(path, split) for path in [p for p in lists if _is_plain(p)] or lists]
    return found


def read_list_of_names(path: Path, files: Sequence[str], root: Path) -> list[tuple[str, Found]]:
    """Each name in the list and the XML file that it means, in order, none twice.

    A line is one name, spaces and all; a folder before it and the suffix of an image or XML after it change nothing.
    Where every line ends in 1, 0 or -1, and no line fits a file as it is, these are the marks of a class's list.

    Args:
        path: The list.
        files: The XML files.
        root: The folder that ImageSets is in.

    Raises:
        DataError: If the list cannot be read.
    """
    lines = list(dict.fromkeys(filter(None, map(str.strip, read_text(path).splitlines()))))
    finder = FileFinder([root / "Annotations"], lambda: files, split="", root=root, suffixes=_XML)

    def find(names: Sequence[str]) -> list[Found]:
        return finder.find_all([[_as_xml(name)] for name in names])

    marked = [_FLAG.fullmatch(line) for line in lines]
    found = find(lines)
    if lines and all(marked) and not any(item.path for item in found):
        lines = list(dict.fromkeys(match["name"] for match in marked if match))
        found = find(lines)
    return list(zip(lines, found, strict=True))


def _is_plain(path: Path) -> bool:
    return path.stem.casefold() in SPLIT_WORDS


def _is_marked(path: Path) -> bool:
    lines = list(filter(None, map(str.strip, read_text(path).splitlines())))
    return all(map(_FLAG.fullmatch, lines))


def _as_xml(name: str) -> str:
    """The XML file that a line speaks of, by its path below Annotations."""
    parts = split_name(name)
    base = os.path.basename(parts[-1]) if parts else name
    if has_suffix(base, PICTURE_SUFFIXES | _XML):
        base = without_suffix(base)
    return "/".join((*parts[:-1], f"{base}.xml"))
