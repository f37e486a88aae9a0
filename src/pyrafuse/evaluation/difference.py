"""What one detector finds and another does not: two evaluators of the same data -> `Difference`.

An object is found by a detection of its class that overlaps it by half and scores the detector's own best threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.printable import counted, printable
from pyrafuse.evaluation.coco import SIZES, CocoEvaluator
from pyrafuse.evaluation.diagnosis import classify_sizes, match_counted
from pyrafuse.evaluation.faults import make_marks
from pyrafuse.evaluation.matching import Truth
from pyrafuse.evaluation.result import FALSE, MISSED, RIGHT, EvaluationResult, Mark, align_rows

FOUND_BY = ("both", "only A", "only B", "neither")
"""Who finds an object; counts have this order."""

BY_BOTH, ONLY_A, ONLY_B, BY_NEITHER = range(len(FOUND_BY))


@dataclass(frozen=True)
class Side:
    """One of the two detectors.

    Attributes:
        result: Its figures.
        confidence: Its detections that score less do not count here.
        num_false: Its detections from there on that find no object.
    """

    result: EvaluationResult
    confidence: float
    num_false: int


@dataclass(frozen=True)
class ImageDifference:
    """An image in which the two find different objects.

    Attributes:
        path: Path of the file.
        marks: What A and what B found, right or false, and as missed what only the other one found.
        counts: (4,) its objects by who finds them.
    """

    path: str
    marks: tuple[tuple[Mark, ...], tuple[Mark, ...]]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """What `compare` finds.

    Attributes:
        sides: A and B.
        by_class: (K, 4) objects of each class by who finds them.
        by_size: (3, 4) the same of small, medium and large objects.
        images: Those in which most objects are found by one alone, the first of them.
        num_images: How many images there are with such an object.
    """

    sides: tuple[Side, Side]
    by_class: NDArray[np.int64]
    by_size: NDArray[np.int64]
    images: tuple[ImageDifference, ...]
    num_images: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """(4,) all objects by who finds them."""
        return self.by_class.sum(axis=0)

    def summary(self) -> str:
        """What is different, in a sentence or two."""
        counts, (first, second) = self.counts.tolist(), self.sides
        gap = round(second.result.ap - first.result.ap, 3)
        ahead = f"{'B' if gap > 0 else 'A'} is ahead by {abs(gap):.3f} AP" if gap else "neither is ahead in AP"
        text = (
            f"Of {counted(sum(counts), 'object')} both find {counts[BY_BOTH]}, A alone {counts[ONLY_A]}, B alone "
            f"{counts[ONLY_B]}, and neither {counts[BY_NEITHER]}; {ahead} ({first.result.ap:.3f} and "
            f"{second.result.ap:.3f}). A has "
            f"{counted(first.num_false, 'false detection')}, B {second.num_false}."
        )
        names = [*(printable(name, limit=60) for name in first.result.names), *(f"{name} objects" for name in SIZES)]
        gains = np.concatenate([self.by_class, self.by_size])
        leads = gains[:, ONLY_B] - gains[:, ONLY_A]
        widest = int(np.abs(leads[: len(self.by_class)]).argmax()) if len(self.by_class) > 1 else len(self.by_class)
        of_size = len(self.by_class) + int(np.abs(leads[len(self.by_class) :]).argmax())
        told = [
            f"{names[k]} ({'B' if leads[k] > 0 else 'A'} finds {abs(leads[k])} more)"
            for k in dict.fromkeys((widest, of_size))
            if leads[k]
        ]
        return f"{text} They differ most in {' and '.join(told)}." if told else text

    def header(self, title: str) -> tuple[str, ...]:
        """Column titles of `class_rows` and `size_rows`."""
        return (title, "objects", *FOUND_BY, "AP of A", "AP of B")

    def class_rows(self) -> list[tuple[str, ...]]:
        """One row of text a class, and "all" last."""
        (first, second), counts = (side.result for side in self.sides), self.by_class
        pairs = [(a.ap, b.ap) for a, b in zip(first.classes, second.classes, strict=True)]
        rows = [_row(name, of, *pair) for name, of, pair in zip(first.names, counts, pairs, strict=True)]
        return [*rows, _row("all", self.counts, first.ap, second.ap)]

    def size_rows(self) -> list[tuple[str, ...]]:
        """One row of text a size."""
        first, second = (side.result for side in self.sides)
        return [_row(a.name, of, a.ap, b.ap) for a, b, of in zip(first.sizes, second.sizes, self.by_size, strict=True)]

    def table(self) -> str:
        """Aligned text for a terminal."""
        tables = [(self.header("class"), self.class_rows()), (self.header("size"), self.size_rows())]
        return "\n\n".join(align_rows(header, rows) for header, rows in tables)


def compare(first: CocoEvaluator, second: CocoEvaluator, *, score: float | None = None, limit: int = 24) -> Difference:
    """Tell what the detections of ``first``, A, find and those of ``second``, B, do not, and the other way round.

    Args:
        first: Detections of a data set.
        second: Others of the same data.
        score: Least score of a detection that counts; by default each detector's own, where its F1 is best.
        limit: Images at most, those with most differences.
    """
    records, truth = first.data.records, Truth.of(first.data.records)
    parts = [_judge(evaluator, truth, score) for evaluator in (first, second)]
    (_, _, in_a), (_, _, in_b) = parts
    who = np.where(in_a & in_b, BY_BOTH, np.where(in_a, ONLY_A, np.where(in_b, ONLY_B, BY_NEITHER)))
    objects = np.flatnonzero(~truth.crowd)
    of_images = _count(truth.images[objects], who[objects], len(records))
    num_single = of_images[:, ONLY_A] + of_images[:, ONLY_B]
    order = np.argsort(-num_single, kind="stable")[: min(limit, int((num_single > 0).sum()))]
    return Difference(
        sides=(parts[0][0], parts[1][0]),
        by_class=_count(truth.labels[objects], who[objects], len(first.data.names)),
        by_size=_count(classify_sizes(truth.areas[objects]), who[objects], len(SIZES)),
        images=tuple(
            ImageDifference(
                path=str(records[image].path),
                marks=(
                    _mark(parts[0][1], truth, who == ONLY_B, image),
                    _mark(parts[1][1], truth, who == ONLY_A, image),
                ),
                counts=tuple(of_images[image].tolist()),
            )
            for image in order.tolist()
        ),
        num_images=int((num_single > 0).sum()),
    )


def _judge(
    evaluator: CocoEvaluator, truth: Truth, score: float | None
) -> tuple[Side, tuple[NDArray[np.float64], NDArray[np.bool_]], NDArray[np.bool_]]:
    """The figures of a detector, the detections that count and whether each is right, and (M,) what is found."""
    result = evaluator.compute()
    confidence = result.confusion_confidence if score is None else score
    found, matches = match_counted(evaluator, truth)
    is_kept = found[:, 5] >= confidence
    found, matches = found[is_kept], matches[is_kept]
    is_right = matches >= 0
    is_found = np.zeros(len(truth.labels), np.bool_)
    is_found[matches[is_right]] = True
    return Side(result, confidence, int((~is_right).sum())), (found, is_right), is_found


def _count(groups: NDArray[np.int64], who: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
    size = num_groups * len(FOUND_BY)
    return np.bincount(groups * len(FOUND_BY) + who, minlength=size).reshape(num_groups, -1)


def _mark(
    judged: tuple[NDArray[np.float64], NDArray[np.bool_]], truth: Truth, is_missed: NDArray[np.bool_], image: int
) -> tuple[Mark, ...]:
    found, is_right = judged
    inside, missed = found[:, 0] == image, is_missed & (truth.images == image)
    kinds = np.where(is_right[inside], RIGHT, FALSE)
    return (
        *make_marks(found[inside, 1:5], found[inside, 6], kinds, found[inside, 5]),
        *make_marks(truth.boxes[missed], truth.labels[missed], np.full(int(missed.sum()), MISSED)),
    )


def _row(name: str, counts: NDArray[np.int64], *precisions: float) -> tuple[str, ...]:
    figures = ("-" if np.isnan(value) else f"{value:.3f}" for value in precisions)
    return (name, str(counts.sum()), *map(str, counts.tolist()), *figures)
