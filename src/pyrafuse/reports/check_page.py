"""What is wrong with a data set as a page: counts, each kind of problem with its pictures, advice, classes.

The most severe comes first. A kind lists its first records and shows some of them; JSON holds all.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.captions import draw_boxes
from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.printable import counted
from pyrafuse.data.checks import report as checked
from pyrafuse.data.checks.sizes import LARGE_SIDE_PX, SMALL_SIDE_PX
from pyrafuse.data.reading.problems import Evidence, Problem
from pyrafuse.evaluation.result import FALSE, RIGHT
from pyrafuse.reports.marking import COLORS
from pyrafuse.visualization.report import Report

MAX_PICTURES = 12
"""Pictures of a kind of problem."""

MAX_ROWS, MAX_FOLDED = 8, 500
"""Records of a kind that stand in the open, and those folded below."""

MAX_CLASSES = 20
"""With more classes their table is folded."""

_ANNOTATED, _FOUND = COLORS[RIGHT], COLORS[FALSE]
_SHOWN_PX = 400
_MARGIN, _LEAST_MARGIN_PX = 0.6, 24

_MEANINGS = {
    "error": "Errors have to be mended",
    "warning": "Warnings are faults that were dealt with as told",
    "hint": "Hints are worth a look, and may be right as they are",
    "note": "Notes tell how sound data were taken",
}


def describe_check(title: str, found: checked.Report, advice: Sequence[checked.Advice] = ()) -> Report:
    """The page of a check.

    Args:
        title: Its title.
        found: What the check told.
        advice: What to train with.
    """
    page = Report(title)
    page.add_lead(
        (severity + "s", f"{len(found.of_severity(severity)):,}", words)
        for severity, words in (
            ("error", "to be mended"), ("warning", "dealt with"), ("hint", "worth a look"), ("note", "for information")
        )
    )  # fmt: skip
    objects = counted(found.sizes[-1].num_objects, "object")
    page.add_text(f"{found.finding}\n{objects} in {counted(found.num_images, 'image')}, {found.num_empty} without any.")
    page.add_text(". ".join(_MEANINGS.values()) + ".")
    for (severity, kind, remedy), problems in checked.group_problems(found.problems).items():
        _add_kind(page, severity, kind, remedy, problems)
    if not found.problems:
        page.add_text("Nothing was found that is wrong.")
    _add_advice(page, advice)
    _add_classes(page, found)
    return page


def _add_kind(page: Report, severity: str, kind: str, remedy: str, problems: Sequence[Problem]) -> None:
    page.add_section(f"{severity.capitalize()}: {kind}")
    page.add_text(f"{counted(len(problems), severity)}. What to do: {remedy}.")
    rows = [(_where(problem), problem.message) for problem in problems[:MAX_FOLDED]]
    seen = [(problem, problem.evidence) for problem in problems if problem.evidence]
    pairs = [(problem, evidence) for problem, evidence in seen if evidence.other][: MAX_PICTURES // 2]
    single = [(problem, evidence) for problem, evidence in seen if not evidence.other][:MAX_PICTURES]
    pictures, unread = [], []
    for problem, evidence in single:
        try:
            pictures.append((draw_evidence(evidence), f"{_where(problem)}: {problem.message}"))
        except DataError as error:
            unread.append((str(error),))
    couples = []
    for problem, evidence in pairs:
        try:
            images = [shrink(read_image(path)) for path in (evidence.image, evidence.other) if path]
            couples.append((*images, f"{_where(problem)}: {problem.message}"))
        except DataError as error:
            unread.append((str(error),))
    if couples:
        page.add_pairs(couples, sides=("this image", "the other image"))
    if pictures:
        has_found = any(evidence.found for _, evidence in single)
        words = "Blue: as annotated. Orange: as the model finds it." if has_found else ""
        page.add_gallery(pictures, words, tile_px=300)
    if unread:
        page.add_table(("not shown",), unread)
    if len(rows) <= MAX_ROWS and (not seen or len(rows) > len(pictures) + len(couples)):
        page.add_table(("where", "what"), rows)
    elif len(rows) > MAX_ROWS:
        more = f", {MAX_FOLDED} of {len(problems)}; --json writes all" if len(problems) > MAX_FOLDED else ""
        with page.folded(f"All {len(rows)}" if not more else f"The first{more}"):
            page.add_table(("where", "what"), rows)


def _where(problem: Problem) -> str:
    return f"{problem.file.name}, {problem.record}" if problem.record else problem.file.name


def draw_evidence(evidence: Evidence) -> NDArray[np.uint8]:
    """(H, W, 3) what is around the boxes, at the size that is shown, with the boxes; the whole picture without any.

    Raises:
        DataError: If the picture cannot be read.
    """
    pixels = read_image(evidence.image)
    boxes = np.array([*evidence.boxes, *evidence.found], np.float64).reshape(-1, 4)
    if not len(boxes):
        return shrink(pixels)
    height, width = pixels.shape[:2]
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = max(float(_MARGIN * (high - low).max()), _LEAST_MARGIN_PX)
    left, top = np.clip(np.floor(low - margin), 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high + margin), (left + 1, top + 1), (width, height)).astype(int).tolist()
    part = pixels[top:bottom, left:right]
    shown = shrink(part)
    scale = shown.shape[1] / part.shape[1], shown.shape[0] / part.shape[0]
    drawn = draw_boxes(
        np.ascontiguousarray(shown.transpose(2, 0, 1)),
        (boxes - (left, top, left, top)) * (*scale, *scale),
        names=[""] * len(boxes),
        marks=[*evidence.captions] or [""] * len(boxes),
        colors=[_ANNOTATED] * len(evidence.boxes) + [_FOUND] * len(evidence.found),
    )
    return np.ascontiguousarray(np.asarray(drawn).transpose(1, 2, 0))


def shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (H, W, 3) with its longest side as it is shown; small ones are enlarged."""
    height, width = pixels.shape[:2]
    scale = _SHOWN_PX / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=interpolation).astype(np.uint8, copy=False)


def _add_advice(page: Report, advice: Sequence[checked.Advice]) -> None:
    if not advice:
        return
    page.add_section("Advice")
    page.add_text("What follows from these figures for a training; pyrafuse train DATA --advice applies it.")
    page.add_key_values({each.topic: f"{each.text}{f' ({each.options})' if each.options else ''}" for each in advice})


def _add_classes(page: Report, found: checked.Report) -> None:
    page.add_section("Classes")
    header = ("class", "objects", "small", "medium", "large", "side in pixels: 5 %", "half", "95 %")
    rows = [
        (row.name, row.num_objects, row.small, row.medium, row.large, *(f"{side:.0f}" for side in row.sides_px))
        for row in found.sizes
    ]
    caption = (
        f"Objects that are not set aside. Small: below {SMALL_SIDE_PX} x {SMALL_SIDE_PX} pixels; large: from "
        f"{LARGE_SIDE_PX} x {LARGE_SIDE_PX} on."
    )
    if len(rows) <= MAX_CLASSES + 1:
        page.add_table(header, rows, caption)
        return
    page.add_table(header, rows[-1:], caption)
    with page.folded(f"{len(rows) - 1} classes" if len(rows) <= MAX_FOLDED else f"The first {MAX_FOLDED} classes"):
        page.add_table(header, rows[:-1][:MAX_FOLDED])
