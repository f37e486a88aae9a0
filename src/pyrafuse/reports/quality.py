"""How good a detector is, as parts of a page: AP, classes and sizes, precision and recall, confusion, worst images."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.writing import write_text
from pyrafuse.evaluation.diagnosis import Diagnosis
from pyrafuse.evaluation.result import EvaluationResult, ImageFaults
from pyrafuse.reports.diagnosis import add_calibration, add_confidence, add_errors, add_levels
from pyrafuse.reports.marking import draw_marks
from pyrafuse.visualization.curves import plot_confusion, plot_precision_recall, precision_recall_panels
from pyrafuse.visualization.figures import save_figure
from pyrafuse.visualization.report import Report

MAX_MATRIX_CLASSES = 12
"""With more classes the page lists the most frequent confusions."""

MAX_CONFUSIONS = 20

MAX_LISTED_CLASSES = 20
"""With more classes the weakest are listed, and all are folded."""

NUM_WEAKEST = 10

LEAST_AP = 0.01
"""A detector below has learnt nothing."""

_CLASS_CAPTION = (
    "AR{0}: mean share of the objects found, with {0} detections an image and class. "
    "Precision, recall and F1: at IoU 0.50."
)

_FIGURES = (
    ("AP", "ap", "mean over ten limits of overlap"),
    ("AP50", "ap50", "boxes that overlap by half count"),
    ("AP75", "ap75", "boxes must overlap by 75 %"),
    ("small", "ap_small", "AP of objects below 32 x 32 px"),
    ("medium", "ap_medium", "AP of objects in between"),
    ("large", "ap_large", "AP of objects from 96 x 96 px on"),
)


def add_quality(
    report: Report,
    result: EvaluationResult,
    *,
    on: str,
    diagnosis: Diagnosis | None = None,
    strides: Sequence[int] = (),
) -> None:
    """Add everything that ``result`` tells.

    Args:
        report: Page that is extended.
        result: Result of the evaluation.
        on: Which images were judged: ``validation``, ``val``, ``test``.
        diagnosis: Why the detector fails, where the detections themselves are at hand.
        strides: Pixels a cell of each pyramid level, finest first, where they are known.
    """
    add_figures(report, result, on=on)
    if diagnosis is not None:
        add_errors(report, diagnosis, result.names)
    add_classes(report, result)
    add_precision_recall(report, result)
    if diagnosis is not None:
        add_confidence(report, diagnosis, result)
    add_confusion(report, result)
    if diagnosis is not None:
        add_levels(report, diagnosis, strides)
        add_calibration(report, diagnosis)
    add_worst(report, result)


def describe_evaluation(
    result: EvaluationResult,
    diagnosis: Diagnosis,
    *,
    title: str,
    on: str,
    facts: Mapping[str, Any],
    strides: Sequence[int] = (),
) -> Report:
    """The page about an evaluation.

    Args:
        result: Result of the evaluation.
        diagnosis: Why the detector fails.
        title: Title of the page.
        on: Which images were judged: ``val``, ``test``.
        facts: Name and value of what else the page tells.
        strides: Pixels a cell of each pyramid level, finest first, where they are known.
    """
    report = Report(title)
    add_quality(report, result, on=on, diagnosis=diagnosis, strides=strides)
    report.add_section("The evaluation")
    report.add_key_values(facts)
    return report


def write_evaluation(result: EvaluationResult, diagnosis: Diagnosis, folder: Path) -> None:
    """Write evaluation.json and precision_recall.png into ``folder``, which is made where there is none."""
    plain = {**result.to_dict(with_curves=True), "diagnosis": diagnosis.to_dict()}
    write_text(folder / "evaluation.json", json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False))
    draw_precision_recall(result, folder / "precision_recall.png")


def draw_precision_recall(result: EvaluationResult, file: Path) -> None:
    """Draw precision over recall to ``file``."""
    save_figure(plot_precision_recall(result.precision, result.names), file)


def draw_confusion(result: EvaluationResult, file: Path) -> None:
    """Draw what the objects of each class were taken for to ``file``: two seconds for 80 classes."""
    save_figure(plot_confusion(result.confusion, result.names, confidence=result.confusion_confidence), file)


def add_figures(report: Report, result: EvaluationResult, *, on: str) -> None:
    """Add AP, AP50, AP75 and those of small, medium and large objects in one line, and what they mean."""
    values = result.figures()
    report.add_lead((name, _number(values[key]), words) for name, key, words in _FIGURES)
    if math.isnan(result.ap):
        report.add_text(f"The {result.num_images} {on} images hold no objects, so there is no average precision.")
        return
    if result.ap < LEAST_AP:
        report.add_text(
            f"An AP below {LEAST_AP} means that nothing was learnt yet: train for more epochs (--epochs), or start "
            "from pretrained weights (--weights). What follows says little."
        )
    report.add_text(
        "Average precision (AP) lies between 0 and 1. At 1 every object is found, under its own class and in a box "
        "that fits, before any false detection. Boxes fit when they overlap the object by a limit (IoU): AP is the "
        f"mean over ten limits, as COCO defines it. Judged on {result.num_images} {on} images with "
        f"{result.num_objects} objects; - means that there is no such object."
    )


def add_classes(report: Report, result: EvaluationResult) -> None:
    """Add the figures of each class and of each size, with remarks."""
    report.add_section("Per class")
    report.add_text(
        "A class with a low AP is found late or badly placed: look at its recall (share of its objects that is found) "
        "and its precision (share of its detections that is right). Both are told at the confidence where their "
        "balance, F1, is best: the value to give to predict as --score."
    )
    rows, notes = result.class_rows(), result.class_notes()
    caption = _CLASS_CAPTION.format(result.max_detections)
    if len(result.classes) > MAX_LISTED_CLASSES:
        precisions = [c.ap for c in result.classes]
        weak = [*np.argsort(precisions, kind="stable")[:NUM_WEAKEST].tolist(), -1]  # NaN last, and the row of all
        _add_table(
            report,
            result.class_header(),
            [rows[k] for k in weak],
            [notes[k] for k in weak],
            f"The {NUM_WEAKEST} classes with the lowest AP; all of them are folded below.",
        )
        with report.folded(f"All {len(result.classes)} classes"):
            _add_table(report, result.class_header(), rows, notes, caption)
    else:
        _add_table(report, result.class_header(), rows, notes, caption)
    with report.folded("AP of each class by overlap and size"):
        report.add_table(("class", *(name for name, *_ in _FIGURES)), result.precision_rows())
    report.add_section("Per size")
    report.add_text("Where small objects have a much lower AP than large ones, a larger --size helps most.")
    _add_table(
        report,
        result.size_header(),
        result.size_rows(),
        result.size_notes(),
        "Small: below 32 x 32 pixels of the image; large: from 96 x 96 pixels on.",
    )
    with report.folded("The twelve figures of COCO"):
        report.add_table(tuple(result.figures()), [tuple(_number(value) for value in result.figures().values())])


def _add_table(
    report: Report, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], caption: str
) -> None:
    """A table with its notes beside the names, if there are any."""
    if not any(notes):
        report.add_table(header, rows, caption)
        return
    noted = [(name, note, *rest) for (name, *rest), note in zip(rows, notes, strict=True)]
    report.add_table((header[0], "note", *header[1:]), noted, caption)


def add_precision_recall(report: Report, result: EvaluationResult) -> None:
    """Add precision over recall, of each class and at each overlap."""
    report.add_section("Precision and recall")
    by_class, by_iou = precision_recall_panels(result.precision, result.names)
    report.add_charts(
        [
            (
                by_class,
                "Lowering the score threshold goes from left to right along a curve: more objects are found (recall), "
                "and more detections are false (precision falls). A curve that ends early never finds the rest.",
            ),
            (
                by_iou,
                "The same for all classes, when boxes must overlap more: curves far below that of 0.50 mean objects "
                "that are found, in boxes that do not fit well.",
            ),
        ]
    )


def add_confusion(report: Report, result: EvaluationResult) -> None:
    """Add what each object was taken for, as counts and shares."""
    report.add_section("Confusion")
    report.add_text(
        f"A row is a true class, and tells what its objects were taken for at a score of "
        f"{result.confusion_confidence:.3f} or more; the last column counts objects that were missed, the last row "
        "detections where no object is. High values off the diagonal are what to work on: more images of this class, "
        "or annotations that need mending."
    )
    names = (*result.names, "background")
    if len(result.names) <= MAX_MATRIX_CLASSES:
        report.add_matrix(names, result.confusion, "Objects, and their share of the row, at IoU 0.50.")
        return
    frequent = _most_frequent(result.confusion)
    totals = result.confusion.sum(axis=1)
    report.add_table(
        ("true", "taken for", "count", "share of the row"),
        [
            (names[row], names[column], count, f"{count / totals[row]:.0%}")
            for row, column in frequent
            for count in [result.confusion[row, column]]
        ],
        caption=f"The {len(frequent)} most frequent confusions at IoU 0.50. Background as the true class: nothing is "
        "there; taken for background: missed. pyrafuse evaluate --confusion FILE draws all of them.",
    )


def add_worst(report: Report, result: EvaluationResult) -> None:
    """Add the images with the most mistakes: detections at the left, annotations at the right."""
    report.add_section("Worst images")
    if not result.worst:
        report.add_text("No image holds a mistake at this confidence.")
        return
    pairs, unreadable = [], []
    for image in result.worst:
        try:
            pixels = read_image(Path(image.path))
        except PyrafuseError as error:
            unreadable.append((str(error),))
            continue
        found, objects = (draw_marks(pixels, marks, result.names) for marks in (image.found, image.objects))
        pairs.append((found, objects, _counted(image)))
    report.add_pairs(
        pairs,
        "Ranked by the number of mistakes: an object that is missed, a detection where nothing is, and an object "
        f"under a wrong class count one each, at a score of {result.confusion_confidence:.3f} or more and IoU 0.50. "
        "Left: detections; blue is right, orange false, teal the wrong class. Right: annotations; blue was found, "
        "purple missed, teal taken for another class, grey not judged. If the annotations are wrong, mend them.",
    )
    if unreadable:
        report.add_table(("not shown",), unreadable)


def _counted(image: ImageFaults) -> str:
    counts = image.counts()
    return f"{Path(image.path).name}: " + ", ".join(f"{counts[kind]} {kind}" for kind in counts)


def _most_frequent(confusion: np.ndarray) -> Sequence[tuple[int, int]]:
    """(row, column) of the highest counts off the diagonal."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:MAX_CONFUSIONS]
    rows, columns = np.unravel_index(order, off.shape)
    return [(r, c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if off[r, c]]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
