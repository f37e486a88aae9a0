"""A data set looked through by a detector: images -> detections -> annotations that they contradict -> problems."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.boxes import tell_box, to_tuples
from pyrafuse.data.reading.problems import Evidence, Problem
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.doubts import Doubt, find_doubts
from pyrafuse.evaluation.matching import Truth
from pyrafuse.inference.predicting import Predictor

LEAST_SCORE = 0.05
"""Detections below are never sure; leaving them out saves time."""

KINDS = {
    "missing": ("object that may lack its box", "annotate it if it is one of the class"),
    "class": ("class that the model contradicts", "mend the class if the model is right"),
    "loose": ("box that fits badly", "draw the box anew if the model's fits better"),
}
"""What each kind of doubt is called, and what to do about it."""


def find_contradictions(
    detector: Predictor,
    detect_all: Callable[..., CocoEvaluator],
    splits: Sequence[DetectionData],
    *,
    without: frozenset[Path] = frozenset(),
    console: Console | None = None,
) -> list[Problem]:
    """Detect in all images of ``splits``, and tell which annotations the detector contradicts, the surest first.

    Args:
        detector: Detector, or anything else that predicts.
        detect_all: What detects with it in a whole data set.
        splits: The images, with one list of classes.
        without: Images that cannot be read.
        console: Console for progress output; None shows none.

    Raises:
        DataError: If the images have no object, the detector does not know a class of theirs, or has diverged.
    """
    records = tuple(record for data in splits for record in data.records if record.path not in without)
    data = replace(splits[0], records=records, split="whole")
    evaluator = detect_all(detector, data, score=LEAST_SCORE, console=console)
    if not len(evaluator.rows()):
        return [
            Problem("hint", "model that finds nothing", records[0].path.parent, "",
                    f"in {counted(len(records), 'image')} it has no detection of score {LEAST_SCORE:g} or more, so it "
                    "contradicts nothing", "train it longer, or look whether its weights are finite numbers")
        ]  # fmt: skip
    truth = Truth.of(records)
    return [_tell(doubt, data, truth) for doubt in find_doubts(evaluator, truth)]


def _tell(doubt: Doubt, data: DetectionData, truth: Truth) -> Problem:
    record = data.records[doubt.image]
    found = f"{printable(data.names[doubt.label], limit=60)} {doubt.score:.2f}"
    box = np.round(doubt.box, 1)
    message, boxes, captions = f"found {found} at {tell_box(box)}, and no box is there", (), ()
    if doubt.object >= 0:
        own = truth.boxes[doubt.object]
        name = printable(data.names[int(truth.labels[doubt.object])], limit=60)
        boxes, captions = to_tuples(own[None]), (name,)
        message = (
            f"annotated as {name} at {tell_box(own)}, found as {found} at {tell_box(box)}: IoU {doubt.overlap:.2f}"
        )
    kind, remedy = KINDS[doubt.kind]
    evidence = Evidence(record.path, boxes, to_tuples(box[None]), (*captions, found))
    return Problem("hint", kind, record.path, f"image {record.image_id}", message, remedy, evidence)
