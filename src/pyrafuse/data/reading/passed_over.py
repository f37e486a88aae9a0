"""What lies among the images of a data set and is not used: pictures that are not read, one folder for two splits."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import REMEDIES, read_header
from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.folders import UNREAD_SUFFIXES, Tree
from pyrafuse.data.reading.problems import Problem

_MAX_OPENED = 1000
"""So many files without a suffix are opened to see whether they are pictures."""


def find_unread(paths: Iterable[Path], used: Iterable[Path] = ()) -> dict[str, list[Path]]:
    """The pictures among ``paths`` that nothing reads, by their suffix; ``""`` for those that have none."""
    found: dict[str, list[Path]] = defaultdict(list)
    bare = []
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            found[suffix].append(path)
        elif not suffix:
            bare.append(path)
    if bare:  # a million images are not gone through for nothing
        known = set(map(os.fspath, used))
        bare = [path for path in bare if os.fspath(path) not in known]
    for path in islice(bare, _MAX_OPENED):
        try:
            read_header(path)
        except DataError:
            continue
        found[""].append(path)
    return dict(sorted(found.items()))


def say_unread(suffix: str) -> str:
    """What to do about pictures with ``suffix``."""
    if not suffix:
        return "give them the suffix of their kind, .jpg say"
    return REMEDIES.get(suffix, "save them as JPEG or PNG")


def tell_unread(tree: Tree | None, parts: Sequence[DetectionData]) -> list[Problem]:
    """One warning for each suffix of pictures that lie in the data set and are not read.

    Args:
        tree: The files of the data set; without it, those in the folders of its images are looked at.
        parts: Its splits.
    """
    used = (record.path for data in parts for record in data.records)
    if tree is not None:
        files: Iterable[Path] = tree.files
    else:
        used = [*used]
        files = (path for folder in dict.fromkeys(path.parent for path in used) for path in sorted(folder.iterdir()))
    return [
        Problem("warning", "pictures that are not read", paths[0].parent, "",
                f"{len(paths)} {suffix or 'pictures without suffix'}; the first is {paths[0].name}",
                f"passed over; {say_unread(suffix)}")
        for suffix, paths in find_unread(files, used).items()
    ]  # fmt: skip


def tell_one_folder(train: DetectionData, val: DetectionData) -> list[Problem]:
    """A warning if the images of both splits are the same: two names, or links, for one folder."""
    places = [_real_paths(data) for data in (train, val)]
    if not places[1] or set(places[1]) != set(places[0]):
        return []
    real = next(iter(places[1]))
    own, other = places[1][real].parent, places[0][real].parent
    how = f"both are {own}" if own == other else f"{other} and {own} are both {Path(real).parent}"
    return [
        Problem("warning", "one folder for two splits", own, f"splits {train.split} and {val.split}",
                f"all {len(val)} validation images are training images: {how}",
                "kept; give validation images of its own, what was trained on cannot be measured with")
    ]  # fmt: skip


def count_suffixes(files: Iterable[Path]) -> str:
    """``8 .heic (pip install pillow-heif), 1 .csv``, the most first."""
    counts = Counter(path.suffix.lower() for path in files)
    texts = []
    for suffix, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        remedy = f" ({say_unread(suffix)})" if suffix in UNREAD_SUFFIXES else ""
        texts.append(f"{count} {suffix or 'without suffix'}{remedy}")
    return ", ".join(texts[:8]) + (" and more" if len(texts) > 8 else "")


def _real_paths(data: DetectionData) -> dict[str, Path]:
    """Each image by its folder's real place."""
    real_of: dict[Path, str] = {}
    for record in data.records:
        folder = record.path.parent
        if folder not in real_of:
            real_of[folder] = os.path.realpath(folder)
    return {os.path.join(real_of[r.path.parent], r.path.name): r.path for r in data.records}
