"""Faults of a data set, found before training: splits + every image decoded -> report."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError, fold_name
from pyrafuse.base.images.reading import read_picture
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.checks.sizes import ClassSizes, compute_sizes, format_sizes
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.formats.registry import format_of
from pyrafuse.data.reading.passed_over import tell_one_folder
from pyrafuse.data.reading.problems import Problem

TINY_PX = 2.0
"""A box thinner than this is told of: no detector finds it, and most are slips of the hand."""

COUNTED_DETECTIONS = 100
"""So many detections of an image and class COCO's evaluation counts."""

_BLOCK = 1 << 20
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        finding: What was found, in one sentence.
        problems: Errors first, then warnings, then notes.
        num_images: Of training and validation together.
        num_empty: How many of these hold no object.
        sizes: How large the objects are, class by class.
    """

    finding: str
    problems: tuple[Problem, ...]
    num_images: int
    num_empty: int
    sizes: tuple[ClassSizes, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What has to be mended."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was dealt with."""
        return tuple(problem for problem in self.problems if problem.severity == "warning")

    @property
    def notes(self) -> tuple[Problem, ...]:
        """How sound data were taken."""
        return tuple(problem for problem in self.problems if problem.severity == "note")

    @property
    def has_errors(self) -> bool:
        """Whether anything has to be mended."""
        return bool(self.errors)

    def text(self, *, num_examples: int = 5) -> str:
        """The report for people: every kind of problem with its count, its remedy and its first examples."""
        return f"{self.finding}\n{self.details(num_examples=num_examples)}"

    def details(self, *, num_examples: int = 5) -> str:
        """The same without the first line, for whoever has said what was found."""
        objects = self.sizes[-1].num_objects
        lines = [
            f"{counted(objects, 'object')} in {counted(self.num_images, 'image')}; "
            f"{counted(self.num_empty, 'image')} {'holds' if self.num_empty == 1 else 'hold'} none",
            "",
            format_sizes(self.sizes),
            "",
            *format_problems(self.problems, num_examples),
            f"{counted(len(self.errors), 'error')}, {counted(len(self.warnings), 'warning')}"
            + (f", {counted(len(self.notes), 'note')}" if self.notes else ""),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "finding": self.finding,
            "num_images": self.num_images,
            "num_empty": self.num_empty,
            "sizes": [asdict(row) for row in self.sizes],
            "errors": [problem.to_dict() for problem in self.errors],
            "warnings": [problem.to_dict() for problem in self.warnings],
            "notes": [problem.to_dict() for problem in self.notes],
        }

    def raise_on_errors(self, *, strict: bool = False) -> None:
        """Stop at faulty data.

        Raises:
            DataError: If there is an error, or, when ``strict``, a warning; the message is grouped like `text`.
        """
        problems = self.errors + self.warnings if strict else self.errors
        if problems:
            raise DataError("\n".join(["the data set has faults:", *format_problems(problems, 3)]).rstrip())


def check(splits: Splits, *, decode: bool = True, progress: Callable[[int, int], None] | None = None) -> Report:
    """Gather the faults found while reading, and look for those that reading does not see.

    These are images that are damaged behind their header, images that lie in both splits or twice in one (by
    content), boxes thinner than `TINY_PX`, splits and classes without an object.

    Args:
        splits: What `read_splits` gave.
        decode: Decode every image; without it, only a damaged header is seen.
        progress: Called with the images done and the number of all.
    """
    both = (splits.train, splits.val)
    records = [record for data in both for record in data.records]
    problems = [*splits.problems, *_find_bare(splits.train, "training"), *_find_bare(splits.val, "validation")]
    if decode:
        problems += _find_damaged(records, progress)
    one_folder = tell_one_folder(splits.train, splits.val)
    copies = _find_copies(splits.train, splits.val)
    problems += [*one_folder, *(p for p in copies if not one_folder or p.kind != "image in both splits")]
    problems += _find_tiny(records)
    sizes = compute_sizes(both)
    problems += find_set_aside(both)
    if crowded := tell_crowded(both, None):
        place = records[0].path.parent
        problems.append(Problem("note", "images with many objects", place, "", crowded, "all objects are trained on"))
    problems += _find_bare_classes(both, sizes)
    problems += [*find_alike_names(splits.train.names, records[0].path.parent), *_find_bare_names(splits.train)]
    return Report(
        finding=splits.finding,
        problems=tuple(sorted(problems, key=lambda problem: _SEVERITIES.index(problem.severity))),
        num_images=len(records),
        num_empty=sum(not len(record.labels) for record in records),
        sizes=sizes,
    )


def _find_bare(data: DetectionData, purpose: str) -> list[Problem]:
    if not all(record.crowd.all() for record in data.records):
        return []
    place, split = data.records[0].path.parent, f"split {data.split}" if data.split else ""
    what = f"none of the {counted(len(data), 'image')} for {purpose} holds an object"
    if num_aside := sum(len(record.crowd) for record in data.records):
        word, remedy = format_of(data.layout).set_aside
        return [
            Problem("error", "only objects that are set aside", place, split,
                    f"{what} to be found: all {num_aside} are {word}", remedy)
        ]  # fmt: skip
    return [
        Problem("error", "no objects at all", place, split, what,
                "check that these are the images that were annotated, and that the annotations are whole")
    ]  # fmt: skip


def tell_crowded(splits: Sequence[DetectionData], max_detections: int | None) -> str:
    """One sentence on images with more objects than are counted: ``max_detections``, COCO's 100 if None; or nothing."""
    limit = max_detections or COUNTED_DETECTIONS
    counts = np.array([np.count_nonzero(~record.crowd) for data in splits for record in data.records], np.int64)
    many = counts[counts > limit]
    if not len(many):
        return ""
    return (
        f"{len(many)} of {counted(len(counts), 'image')} hold more than {limit} objects, up to {many.max()}: "
        f"evaluation counts {limit} detections an image and class{'' if max_detections else ', as COCO does'}; "
        f"--max-detections {many.max()} counts more"
    )


def find_set_aside(splits: Sequence[DetectionData]) -> list[Problem]:
    """Tell how many objects are neither to be found nor missed, and of which classes: a warning from half of all on."""
    records = [record for data in splits for record in data.records]
    names = splits[0].names
    aside, total = count_set_aside(splits)
    if not aside.sum():
        return []
    largest = np.argsort(-aside, kind="stable")[: np.count_nonzero(aside)].tolist()
    shown = ", ".join(f"{names[label]} {aside[label]} of {total[label]}" for label in largest[:10])
    more = f" and {len(largest) - 10} more classes" if len(largest) > 10 else ""
    is_much = 2 * aside.sum() >= total.sum()
    word, remedy = format_of(splits[0].layout).set_aside
    return [
        Problem("warning" if is_much else "note", "objects set aside", records[0].path.parent, "",
                f"{aside.sum()} of {total.sum()} objects are {word}: {shown}{more}",
                remedy if is_much else "they count neither as found nor as missed")
    ]  # fmt: skip


def count_set_aside(splits: Sequence[DetectionData]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) the crowds and difficult objects of each class, and (K,) all objects of it."""
    records = [record for data in splits for record in data.records]
    labels = np.concatenate([record.labels for record in records] or [np.zeros(0, np.int64)])
    crowd = np.concatenate([record.crowd for record in records] or [np.zeros(0, bool)])
    count = len(splits[0].names)
    return np.bincount(labels[crowd], minlength=count), np.bincount(labels, minlength=count)


def _find_bare_classes(splits: Sequence[DetectionData], sizes: Sequence[ClassSizes]) -> list[Problem]:
    place, aside = splits[0].records[0].path.parent, count_set_aside(splits)[0].tolist()
    word, remedy = format_of(splits[0].layout).set_aside
    problems = []
    for row, num_aside in zip(sizes[:-1], aside, strict=True):
        if row.num_objects:
            continue
        if num_aside:
            message = f"all {num_aside} objects of the class {row.name} are {word}"
            problems.append(Problem("warning", "class with all objects set aside", place, row.name, message, remedy))
        else:
            message = f"no object of the class {row.name} in any split"
            remedy_bare = "it cannot be learnt; delete it or annotate some"
            problems.append(Problem("warning", "class without objects", place, row.name, message, remedy_bare))
    return problems


def find_alike_names(names: Sequence[str], place: Path) -> list[Problem]:
    """Tell of classes whose names differ in case, spaces, hyphens or underscores alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[fold_name(name)].append(name)
    return [
        Problem("warning", "classes with almost the same name", place, "",
                f"{' and '.join(map(repr, alike))} are {len(alike)} classes",
                "they are learnt apart; give them one name if they are one class")
        for alike in groups.values() if len(set(alike)) > 1
    ]  # fmt: skip


def _find_bare_names(data: DetectionData) -> list[Problem]:
    """Tell of classes that are called by their numbers, since no file names them."""
    naming = format_of(data.layout).naming
    if not naming or data.names != tuple(map(str, range(len(data.names)))):
        return []
    return [
        Problem("note", "classes without names", data.records[0].path.parent, "",
                f"no file names the classes: they are called by their numbers, 0 to {len(data.names) - 1}",
                f"to name them, {naming}")
    ]  # fmt: skip


def _find_damaged(records: Sequence[ImageRecord], progress: Callable[[int, int], None] | None) -> list[Problem]:
    def decode(record: ImageRecord) -> tuple[str, tuple[str, ...]]:
        try:
            return "", read_picture(record.path).notes
        except DataError as error:
            return str(error), ()

    problems = []
    pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes outside of Python's lock
    try:
        for done, (record, (error, notes)) in enumerate(zip(records, pool.map(decode, records), strict=True), 1):
            if error:
                problems.append(
                    Problem("error", "unreadable image", record.path, f"image {record.image_id}", error,
                            "replace it or remove it from the annotations")
                )  # fmt: skip
            problems += [
                Problem("warning", "image that is not plain RGB of 8 bits", record.path, f"image {record.image_id}",
                        note, "kept as told; save the images as RGB of 8 bits if this is not what was annotated")
                for note in notes
            ]  # fmt: skip
            if progress:
                progress(done, len(records))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    return problems


def _find_copies(train: DetectionData, val: DetectionData) -> list[Problem]:
    """The same picture twice, by its bytes; files of a size of their own need not be read."""
    by_size: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    for data in (train, val):
        for path in dict.fromkeys(record.path for record in data.records):
            by_size[path.stat().st_size].append((path, data.split))
    problems = []
    for candidates in by_size.values():
        first: dict[bytes, tuple[Path, str]] = {}
        for path, split in candidates if len(candidates) > 1 else []:
            other, other_split = first.setdefault(_hash(path), (path, split))
            if split != other_split:
                problems.append(
                    Problem("warning", "image in both splits", path, "", f"the same as {other} in {other_split}",
                            "remove one: what was trained on cannot be measured with")
                )  # fmt: skip
            elif path != other:
                problems.append(
                    Problem("warning", "image twice in one split", path, "", f"the same as {other}", "remove one")
                )
    return problems


def _hash(path: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def _find_tiny(records: Iterable[ImageRecord]) -> list[Problem]:
    problems = []
    for record in records:
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        tiny = np.flatnonzero(sides.min(axis=1, initial=np.inf) < TINY_PX)
        if len(tiny):
            width, height = sides[tiny[0]].tolist()
            problems.append(
                Problem("warning", "tiny box", record.path, f"image {record.image_id}",
                        f"{counted(len(tiny), 'box', 'boxes')} thinner than {TINY_PX:g} px; the first is {width:.2f} x "
                        f"{height:.2f} at [{', '.join(f'{v:.6g}' for v in record.boxes[tiny[0]].tolist())}] (xyxy)",
                        "kept; delete it if it is a slip of the hand")
            )  # fmt: skip
    return problems


def format_problems(problems: Sequence[Problem], num_examples: int) -> list[str]:
    """Lines for people: every kind of problem with its count, its remedy and its first examples."""
    groups: dict[tuple[str, str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem.severity, problem.kind, problem.remedy].append(problem)
    lines = []
    for (severity, kind, remedy), members in groups.items():
        lines.append(f"{severity}: {kind} ({len(members)}): {remedy}")
        lines += [printable(f"  {problem.place}: {problem.message}") for problem in members[:num_examples]]
        if len(members) > num_examples:
            lines.append(f"  ... and {len(members) - num_examples} more")
        lines.append("")
    return lines
