"""Images as annotations list them, and problems of those that are missing or were found under another name."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyrafuse.data.reading.finding import Found, say_rule
from pyrafuse.data.reading.problems import Problem
from pyrafuse.data.reading.rules import ReadingRules


@dataclass(frozen=True)
class ListedImage:
    """An image as the annotations speak of it.

    Attributes:
        path: Where it lies, or where it should.
        image_id: Its id, or its rank.
        width: Width in pixels, as annotated; 0 where the annotations do not say.
        height: Height in pixels, as annotated; 0 where the annotations do not say.
        file: The file that lists it.
        record: The place in that file.
        found: What the lookup of its name gave, where it was looked up.
    """

    path: Path
    image_id: int | str
    width: int
    height: int
    file: Path
    record: str
    found: Found | None = None


def tell_found(images: Sequence[ListedImage]) -> list[Problem]:
    """One warning for each rule by which images were found otherwise than as written."""
    by_rule: dict[int, list[tuple[ListedImage, Found]]] = defaultdict(list)
    for image in images:
        if image.found is not None and image.found.path is not None and image.found.rule:
            by_rule[image.found.rule].append((image, image.found))
    problems = []
    for rule, items in sorted(by_rule.items()):
        image, found = items[0]
        problems.append(
            Problem("warning", f"image found by {say_rule(rule)}", image.file, image.record,
                    f"{len(items)} of {len(images)} images; the first is {found.name!r}, taken for {found.path}",
                    "used; check that these are the right ones, or correct the names")
        )  # fmt: skip
    return problems


def tell_missing(images: Sequence[ListedImage], num_listed: int, rules: ReadingRules) -> list[Problem]:
    """What is wrong with ``images``, those of ``num_listed`` that are not there."""
    problems = []
    missing = []
    for image in images:
        if image.found is not None and image.found.is_ambiguous:
            problems.append(
                Problem("error", "ambiguous image name", image.file, image.record, image.found.fault,
                        "left out; correct the name")
            )  # fmt: skip
        else:
            missing.append(image)
    if rules.missing == "skip" and missing:
        first = missing[0]
        problems.append(
            Problem("warning", "missing images", first.file, "",
                    f"{len(missing)} of {num_listed} images are not there; the first is {first.path}",
                    "left out with their objects, as --missing skip asks")
        )  # fmt: skip
        return problems
    return problems + [
        Problem("error", "missing image", image.file, image.record, f"{image.path} does not exist{_hint(image)}",
                "left out; put it there, remove it from the annotations, or leave such images out by --missing skip")
        for image in missing
    ]  # fmt: skip


def _hint(image: ListedImage) -> str:
    if os.path.islink(image.path):
        return f"; it is a link to {os.readlink(image.path)}"
    return f"; {image.found.fault}" if image.found is not None and image.found.fault else ""
