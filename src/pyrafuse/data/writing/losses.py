"""What a data set loses in another format: readings + what the format holds -> sentences with counts."""

from collections.abc import Sequence

import numpy as np

from pyrafuse.base.printable import counted, list_names
from pyrafuse.base.records import DetectionData
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.writing.layouts import AREAS, ASIDE, BARE_CLASSES, FRACTIONS, NUMBERS, Writing

_SAME_AREA = 1e-3
"""Share by which an area may differ from that of its box and be the same: tools round differently."""


def find_losses(readings: Sequence[Reading], writing: Writing) -> list[str]:
    """What is lost of the objects, one sentence each: what no format of ours holds, and what this one does not."""
    losses = []
    unkept: dict[str, int] = {}
    for reading in readings:
        for what, count in reading.unkept.items():
            unkept[what] = unkept.get(what, 0) + count
    losses += [f"{what}: {count}" for what, count in unkept.items()]
    left_out = [problem for reading in readings for problem in reading.problems if problem.severity == "error"]
    if left_out:
        losses.append(f"{counted(len(left_out), 'image or object', 'images or objects')} with an error, told above")
    data = [reading.data for reading in readings]
    losses += [sentence for kind, sentence in _count(data).items() if kind not in writing.keeps and sentence]
    return losses


def tell_numbers(data: Sequence[DetectionData], writing: Writing) -> str:
    """A sentence on numbers that are given anew; empty where they stay."""
    has_ids = any(
        [record.image_id for record in split.records] != list(range(len(split.records)))
        or list(split.category_ids) != list(range(len(split.names)))
        for split in data
    )
    return "images and classes are numbered anew" if has_ids and NUMBERS not in writing.keeps else ""


def _count(splits: Sequence[DetectionData]) -> dict[str, str]:
    """A sentence for each kind of `KEPT` that the data have, the numbers apart."""
    records = [record for split in splits for record in split.records]
    boxes = np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)])
    labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)])
    areas = np.concatenate([np.zeros(0), *(record.areas for record in records)])
    num_aside = sum(int(record.crowd.sum()) for record in records)
    distance = np.abs(boxes - np.round(boxes)).max(axis=1, initial=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    num_areas = int((np.abs(areas - sides.prod(axis=1)) > _SAME_AREA * sides.prod(axis=1)).sum())
    names = splits[0].names
    bare = [name for label, name in enumerate(names) if not (labels == label).any()]
    of = f"of {counted(len(boxes), 'object')}"
    return {
        FRACTIONS: f"fractions of a pixel: boxes of {np.count_nonzero(distance)} {of} are rounded, by up to "
        f"{distance.max(initial=0):.2f} px" if distance.any() else "",
        ASIDE: f"set aside: {num_aside} {of} would count as objects to be found" if num_aside else "",
        AREAS: f"areas: {num_areas} {of} have one that is not that of the box" if num_areas else "",
        BARE_CLASSES: f"classes without objects: {list_names(bare)}" if bare else "",
    }  # fmt: skip
