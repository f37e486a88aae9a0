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

from pyrafuse.core.errors import DataError
from pyrafuse.core.records import DetectionData, ImageRecord
from pyrafuse.data.images import read_picture
from pyrafuse.data.layout import Splits
from pyrafuse.data.passed_over import tell_one_folder
from pyrafuse.data.problems import Problem
from pyrafuse.data.sizes import ClassSizes, compute_sizes, format_sizes

TINY_PX = 2.0
"""A box thinner than this is told of: no detector finds it, and most are slips of the hand."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Report:
    """What a data set holds and what is wrong with it.

    Attributes:
        finding: What was found, in one sentence.
        problems: Errors first.
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
    def has_errors(self) -> bool:
        """Whether anything has to be mended."""
        return bool(self.errors)

    def text(self, *, num_examples: int = 5) -> str:
        """The report for people: every kind of problem with its count, its remedy and its first examples."""
        objects = self.sizes[-1].num_objects
        lines = [
            self.finding,
            f"{objects} objects in {self.num_images} images; {self.num_empty} images hold none",
            "",
            format_sizes(self.sizes),
            "",
            *format_problems(self.problems, num_examples),
            f"{_count(len(self.errors), 'error')}, {_count(len(self.warnings), 'warning')}",
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
        }

    def raise_on_errors(self, *, strict: bool = False) -> None:
        """Stop at faulty data.

        Raises:
            DataError: If there is an error, or, when ``strict``, a warning; the message is grouped like `text`.
        """
        problems = self.problems if strict else self.errors
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
    problems += [
        Problem("warning", "class without objects", records[0].path.parent, row.name,
                f"no object of the class {row.name} in any split", "it cannot be learnt; delete it or annotate some")
        for row in sizes[:-1] if not row.num_objects
    ]  # fmt: skip
    return Report(
        finding=splits.finding,
        problems=tuple(sorted(problems, key=lambda problem: problem.severity != "error")),
        num_images=len(records),
        num_empty=sum(not len(record.labels) for record in records),
        sizes=sizes,
    )


def _find_bare(data: DetectionData, purpose: str) -> list[Problem]:
    if not all(record.crowd.all() for record in data.records):
        return []
    return [
        Problem("error", "no objects at all", data.records[0].path.parent, f"split {data.split}" if data.split else "",
                f"none of the {_count(len(data), 'image')} for {purpose} holds an object (crowds and difficult ones do "
                "not count)", "check that these are the images that were annotated, and that the annotations are whole")
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
                        f"{_count(len(tiny), 'box', 'boxes')} thinner than {TINY_PX:g} px; the first is {width:.2f} x "
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
        lines += [f"  {problem.place}: {problem.message}" for problem in members[:num_examples]]
        if len(members) > num_examples:
            lines.append(f"  ... and {len(members) - num_examples} more")
        lines.append("")
    return lines


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
