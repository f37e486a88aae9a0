"""What is wrong with a data set, one finding at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyrafuse.base.printable import printable
from pyrafuse.base.records import DetectionData


@dataclass(frozen=True)
class Problem:
    """One fault of a data set.

    Attributes:
        severity: An ``error`` must be mended, or what it concerns is left out; a ``warning`` is dealt with as said; a
            ``note`` tells how sound data were taken, and is no fault.
        kind: What problems are grouped by: ``box outside its image``.
        file: The file in which it stands.
        record: The place in that file: ``annotation 17 of image 3``, ``line 4``; empty for the whole file.
        message: The value found, and what was expected.
        remedy: What to do about it, or what was done.
    """

    severity: Literal["error", "warning", "note"]
    kind: str
    file: Path
    record: str
    message: str
    remedy: str

    @property
    def place(self) -> str:
        """The file, and the record in it."""
        return f"{self.file}, {self.record}" if self.record else str(self.file)

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.place}: {self.message}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: str(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Reading:
    """One split as it was read, and what was wrong with it.

    Attributes:
        data: The images and objects that can be used; faulty ones are left out or mended.
        problems: What was left out or mended.
        groups: Classes without objects that other classes name as what they belong to; see `leave_out_groups`.
        unkept: What the annotations hold besides boxes and classes, and the data do not: ``keypoints``, and how many.
    """

    data: DetectionData
    problems: tuple[Problem, ...]
    groups: tuple[str, ...] = ()
    unkept: Mapping[str, int] = field(default_factory=dict)
