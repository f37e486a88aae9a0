"""What an evaluation found, as plain values, and as tables that people read.

Every figure is NaN where it is undefined (no object of that class or size), is null in JSON and "-" in a table.
"""

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.printable import list_names, printable
from pyrafuse.base.typed_values import without_nan

FIGURES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""The twelve figures of COCO, in its own order."""

FEW_OBJECTS = 10
"""Figures of fewer objects are mostly chance: one more that is found moves them by a tenth and more."""

COCO_DETECTIONS = 100
"""So many detections of an image and class COCO's figures count, the best first."""


@dataclass(frozen=True)
class OperatingPoint:
    """Precision and recall at IoU 0.5 of the detections that score ``confidence`` or more."""

    confidence: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassResult:
    """Figures of one class.

    Attributes:
        name: The class.
        ap: Average precision over IoU 0.50 to 0.95.
        ap50: Average precision at IoU 0.50.
        ar_100: Average recall over IoU 0.50 to 0.95 with 100 detections an image.
        num_objects: Objects to be found; crowds are not.
        num_images: Images that hold such an object.
        best: Where its F1 is highest.
        ap75: Average precision at IoU 0.75; NaN in the states of runs from before 0.1.0.
        ap_small: Average precision of its objects below 32² px.
        ap_medium: Average precision of those from 32² to 96² px.
        ap_large: Average precision of those above 96² px.
    """

    name: str
    ap: float
    ap50: float
    ar_100: float
    num_objects: int
    num_images: int
    best: OperatingPoint
    ap75: float = math.nan
    ap_small: float = math.nan
    ap_medium: float = math.nan
    ap_large: float = math.nan


@dataclass(frozen=True)
class SizeResult:
    """Figures of the small (< 32² px), medium or large (>= 96² px) objects, by the annotations' own area."""

    name: str
    ap: float
    ar_100: float
    num_objects: int


RIGHT, MISSED, FALSE, WRONG_CLASS, CROWD = "right", "missed", "false", "wrong class", "crowd"
"""What a detection or an object of an image was."""


@dataclass(frozen=True)
class Mark:
    """A box in an image.

    Attributes:
        box: xyxy in pixels of the image.
        label: Its class, 0..K-1.
        kind: A detection is ``right``, ``false`` (background) or ``wrong class``; an object is ``right``, ``missed``,
            ``wrong class`` or ``crowd``.
        score: Score of a detection; None for an object.
    """

    box: tuple[float, ...]
    label: int
    kind: str
    score: float | None = None


@dataclass(frozen=True)
class ImageFaults:
    """One image with what was found in it and what is there, at IoU 0.5 and ``confusion_confidence``.

    Attributes:
        path: Path of the file.
        found: The detections.
        objects: The objects.
    """

    path: str
    found: tuple[Mark, ...]
    objects: tuple[Mark, ...]

    def counts(self) -> dict[str, int]:
        """How many are ``right``, ``missed``, ``false`` and of the ``wrong class``."""
        kinds = [mark.kind for mark in self.found] + [mark.kind for mark in self.objects if mark.kind == MISSED]
        return {kind: kinds.count(kind) for kind in (RIGHT, MISSED, FALSE, WRONG_CLASS)}


@dataclass(frozen=True)
class EvaluationResult:
    """Everything that `CocoEvaluator.compute` finds.

    Attributes:
        ap: Mean over classes of the average precision over IoU 0.50 to 0.95: COCO's AP.
        ap50: At IoU 0.50.
        ap75: At IoU 0.75.
        ap_small: AP of objects below 32² px.
        ap_medium: AP of objects from 32² to 96² px.
        ap_large: AP of objects above 96² px.
        ar_1: Average recall with one detection an image and class.
        ar_10: With ten.
        ar_100: With a hundred.
        ar_small: AR of objects below 32² px, with a hundred.
        ar_medium: AR of objects from 32² to 96² px.
        ar_large: AR of objects above 96² px.
        num_images: Images of the data set.
        num_objects: Objects to be found; crowds are not.
        num_detections: Detections that were judged.
        best: Where the F1 of all classes together is highest.
        classes: One entry a class.
        sizes: Small, medium and large objects.
        precision: (10, 101, K) precision at IoU 0.50, 0.55 to 0.95 and recall 0.00, 0.01 to 1.00.
        confusion: (K+1, K+1) counts at IoU 0.5; a row a true class, a column a predicted one, background last.
        confusion_confidence: Detections scoring less are not in ``confusion``: the best F1's confidence, or 0.25 where
            there is none.
        worst: The images with the most mistakes at that confidence, the worst first; at most a dozen.
        max_detections: Maximum number of detections counted per image and class; ``ar_100`` and the recalls of sizes
            have this limit where it is not COCO's 100.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    num_images: int
    num_objects: int
    num_detections: int
    best: OperatingPoint
    classes: tuple[ClassResult, ...]
    sizes: tuple[SizeResult, ...]
    precision: NDArray[np.float64]
    confusion: NDArray[np.int64]
    confusion_confidence: float
    worst: tuple[ImageFaults, ...] = ()
    max_detections: int = COCO_DETECTIONS

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return tuple(c.name for c in self.classes)

    @property
    def _recall(self) -> str:
        return f"AR{self.max_detections}"

    def figures(self) -> dict[str, float]:
        """The twelve figures of COCO by name."""
        return {name: getattr(self, name) for name in FIGURES}

    def to_dict(self, *, with_curves: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON: None where a figure is undefined.

        ``precision`` and ``worst`` are there only ``with_curves``.
        """
        plain: dict[str, Any] = {
            **self.figures(),
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_detections": self.num_detections,
            "best": vars(self.best),
            "classes": [{**vars(c), "best": vars(c.best)} for c in self.classes],
            "sizes": [vars(s) for s in self.sizes],
            "confusion": self.confusion.tolist(),
            "confusion_confidence": self.confusion_confidence,
            "max_detections": self.max_detections,
        }
        if with_curves:
            plain["precision"] = self.precision.tolist()
            plain["worst"] = [asdict(image) for image in self.worst]
        return without_nan(plain)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "EvaluationResult":
        """The inverse of `to_dict` ``with_curves``."""
        values = _with_nan(dict(plain))
        values["best"] = OperatingPoint(**values["best"])
        values["classes"] = tuple(ClassResult(**{**c, "best": OperatingPoint(**c["best"])}) for c in values["classes"])
        values["sizes"] = tuple(SizeResult(**s) for s in values["sizes"])
        values["precision"] = np.array(values["precision"], np.float64).reshape(10, 101, -1)
        values["confusion"] = np.array(values["confusion"], np.int64)
        values["worst"] = tuple(
            ImageFaults(image["path"], *(tuple(Mark(**{**mark, "box": tuple(mark["box"])}) for mark in image[part])
                                         for part in ("found", "objects")))
            for image in plain.get("worst", ())
        )  # fmt: skip
        return cls(**values)

    def to_json(self, *, with_curves: bool = False) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(with_curves=with_curves), indent=1, ensure_ascii=False, allow_nan=False)

    def table(self) -> str:
        """Aligned text for a terminal: every class and all together, the sizes, the twelve figures."""
        labels = ("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge", "AR1", "AR10", self._recall, "ARsmall",
                  "ARmedium", "ARlarge")  # fmt: skip
        twelve = [f"{label} {_number(v)}" for label, v in zip(labels, self.figures().values(), strict=True)]
        parts = [
            align_rows(self.class_header(), self.class_rows()),
            "(confidence: where F1 is highest; precision, recall and F1 at IoU 0.50, there)",
            *self.warnings(),
            "",
            align_rows(self.size_header(), self.size_rows()),
            "",
            "  ".join(twelve[:6]),
            "  ".join(twelve[6:]),
        ]
        return "\n".join(parts)

    def markdown(self) -> str:
        """The same tables as Markdown."""
        return f"{_piped(self.class_header(), self.class_rows())}\n\n{_piped(self.size_header(), self.size_rows())}\n"

    def warnings(self) -> list[str]:
        """Sentences about figures that rest on fewer than ten objects."""
        rare = [
            f"{printable(c.name, limit=60)} ({c.num_objects})" for c in self.classes if 0 < c.num_objects < FEW_OBJECTS
        ]
        sizes = [f"{s.name} ({s.num_objects})" for s in self.sizes if 0 < s.num_objects < FEW_OBJECTS]
        return [
            f"fewer than {FEW_OBJECTS} objects, so their figures mean little: {list_names(of, most=10)}"
            for of in (rare, sizes)
            if of
        ]

    def class_notes(self) -> list[str]:
        """One remark a class and one for all together; "" where there is nothing to say."""
        notes = [_few(c.num_objects) or self._mistaken_for(k) for k, c in enumerate(self.classes)]
        return [*notes, _few(self.num_objects)]

    def size_notes(self) -> list[str]:
        """The same of each size."""
        return [_few(size.num_objects) for size in self.sizes]

    def _mistaken_for(self, label: int) -> str:
        """The class that takes most of the objects of ``label``, if it takes a tenth or more of them."""
        row = self.confusion[label]
        others = np.delete(row[:-1], label)
        if not len(others) or others.max() < max(1, row.sum() / 10):
            return ""
        other = int(np.delete(np.arange(len(row) - 1), label)[others.argmax()])
        return f"taken for {self.names[other]}: {row[other]} of {row.sum()}"

    def precision_rows(self) -> list[tuple[str, ...]]:
        """One row of text a class, and "all" last: the class and its AP, AP50, AP75 and that of each size."""
        rows = [*((c.name, c) for c in self.classes), ("all", self)]
        return [(name, *(_number(getattr(of, figure)) for figure in FIGURES[:6])) for name, of in rows]

    def class_header(self) -> tuple[str, ...]:
        """Column titles of `class_rows`."""
        return ("class", "objects", "images", "AP", "AP50", self._recall, "confidence", "precision", "recall", "F1")

    def class_rows(self) -> list[tuple[str, ...]]:
        """One row of text a class, and "all" last."""
        rows = [
            (c.name, str(c.num_objects), str(c.num_images), *map(_number, (c.ap, c.ap50, c.ar_100)), *_point(c.best))
            for c in self.classes
        ]
        total = (str(self.num_objects), str(self.num_images), *map(_number, (self.ap, self.ap50, self.ar_100)))
        return [*rows, ("all", *total, *_point(self.best))]

    def size_header(self) -> tuple[str, ...]:
        """Column titles of `size_rows`."""
        return ("size", "objects", "AP", self._recall)

    def size_rows(self) -> list[tuple[str, ...]]:
        """One row of text a size."""
        return [(s.name, str(s.num_objects), _number(s.ap), _number(s.ar_100)) for s in self.sizes]


def _few(num_objects: int) -> str:
    if not num_objects:
        return "no objects: nothing to measure"
    plural = "" if num_objects == 1 else "s"
    return f"{num_objects} object{plural}: this figure means little" if num_objects < FEW_OBJECTS else ""


def _point(point: OperatingPoint) -> tuple[str, ...]:
    return tuple(_number(v) for v in (point.confidence, point.precision, point.recall, point.f1))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_nan(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_nan(v) for v in value]
    return math.nan if value is None else value


def align_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """First column to the left, numbers to the right; names on one line, whatever they hold."""
    rows = [[printable(row[0], limit=60), *row[1:]] for row in rows]
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        first, *rest = (" " * (w - _width(cell)) for w, cell in zip(widths, row, strict=True))
        lines.append("  ".join([row[0] + first, *(pad + cell for pad, cell in zip(rest, row[1:], strict=True))]))
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns that ``text`` takes in a terminal: two for a wide (Chinese, say) letter, none for a combining one."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _piped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [[printable(cell) for cell in row] for row in rows]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
