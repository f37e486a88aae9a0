"""What is wrong with a data set, one finding at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyrafuse.base.printable import printable
from pyrafuse.base.records import DetectionData


@dataclass(frozen=True)
class Evidence:
    """What shows a problem in a picture.

    Attributes:
        image: The picture.
        boxes: Annotated boxes in it, xyxy in its pixels.
        found: Boxes that a model found in it.
        captions: What stands at each of ``boxes``, then at each of ``found``; none at all for no caption.
        other: A second picture, to compare the first one with.
    """

    image: Path
    boxes: tuple[tuple[float, ...], ...] = ()
    found: tuple[tuple[float, ...], ...] = ()
    captions: tuple[str, ...] = ()
    other: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what there is not is left out."""
        boxes = {name: [[*box] for box in getattr(self, name)] for name in ("boxes", "found") if getattr(self, name)}
        return boxes | ({"other": str(self.other)} if self.other else {})


@dataclass(frozen=True)
class Problem:
    """One fault of a data set, or what may be one.

    Attributes:
        severity: An ``error`` must be mended, or what it concerns is left out; a ``warning`` is a fault that is dealt
            with as said; a ``hint`` is worth a look, and may be right as it is; a ``note`` tells how sound data were
            taken, and is no fault.
        kind: What problems are grouped by: ``box outside its image``.
        file: The file in which it stands.
        record: The place in that file: ``annotation 17 of image 3``, ``line 4``; empty for the whole file.
        message: The value found, and what was expected.
        remedy: What to do about it, or what was done.
        evidence: Where it can be seen, if it can.
    """

    severity: Literal["error", "warning", "hint", "note"]
    kind: str
    file: Path
    record: str
    message: str
    remedy: str
    evidence: Evidence | None = None

    @property
    def place(self) -> str:
        """The file, and the record in it."""
        return f"{self.file}, {self.record}" if self.record else str(self.file)

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.place}: {self.message}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        texts = {name: str(value) for name, value in vars(self).items() if name != "evidence"}
        return texts | (self.evidence.to_dict() if self.evidence else {})


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
