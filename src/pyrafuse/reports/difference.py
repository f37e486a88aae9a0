"""Two detectors on the same images as a page: who finds which objects, and pictures of both side by side."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.reading import read_image
from pyrafuse.evaluation.difference import FOUND_BY, ONLY_A, ONLY_B, Difference, ImageDifference
from pyrafuse.reports.marking import draw_marks
from pyrafuse.visualization.report import Report

_WORDS = ("objects that both find", "objects that B misses", "objects that A misses", "objects that both miss")


def describe_difference(difference: Difference, facts: Mapping[str, Any]) -> Report:
    """The page over what two detectors find.

    Args:
        difference: What was found.
        facts: Name and value of what else the page tells: what A and B are.
    """
    report = Report("What A finds and B does not")
    report.add_key_values(facts)
    report.add_lead(
        [
            *(
                (f"AP of {name}", _number(side.result.ap), f"threshold {side.confidence:.3f}: {side.num_false} false")
                for name, side in zip("AB", difference.sides, strict=True)
            ),
            *zip(FOUND_BY, map(str, difference.counts.tolist()), _WORDS, strict=True),
        ]
    )
    report.add_text(difference.summary())
    report.add_text(
        "An object is found if a detection of its class overlaps it by half (IoU 0.50) and scores the threshold or "
        "more: by default that where the detector's F1 is best. AP looks at all scores."
    )
    report.add_section("By class")
    report.add_table(difference.header("class"), difference.class_rows())
    report.add_section("By size")
    report.add_table(
        difference.header("size"),
        difference.size_rows(),
        "Small: below 32 x 32 pixels of the image; large: from 96 x 96 pixels on.",
    )
    report.add_section("Images")
    if not difference.images:
        report.add_text("In no image one finds an object that the other does not.")
        return report
    names, pairs, unreadable = difference.sides[0].result.names, [], []
    for image in difference.images:
        try:
            pixels = read_image(Path(image.path))
        except PyrafuseError as error:
            unreadable.append((str(error),))
            continue
        pairs.append((*(draw_marks(pixels, marks, names) for marks in image.marks), _tell(image)))
    report.add_pairs(
        pairs,
        f"The {len(difference.images)} of {difference.num_images} images in which most objects are found by one "
        "alone. Left or above: A. Right or below: B. Blue is right, orange false; purple is missed here and found by "
        "the other one.",
        sides=("A", "B"),
    )
    if unreadable:
        report.add_table(("not shown",), unreadable)
    return report


def _tell(image: ImageDifference) -> str:
    return f"{Path(image.path).name}: only A {image.counts[ONLY_A]}, only B {image.counts[ONLY_B]}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
