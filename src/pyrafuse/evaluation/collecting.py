"""From detections of every image of a data set to their judgement: classes matched by name, progress told.

image rows, detections -> the data's labels -> `CocoEvaluator`
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.card import SMALLEST_SIZE, Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, check_between, check_count, same_but_for_case
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import list_names
from pyrafuse.base.progress import advancing, create_bar
from pyrafuse.base.records import DetectionData
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.result import COCO_DETECTIONS

Found = tuple[Sequence[int], Sequence[Detections]]
"""Rows of images, and what was found in each."""


def collect(
    detect: Callable[[Callable[[float], None]], Iterable[Found]],
    data: DetectionData,
    *,
    card: Card,
    max_detections: int | None = None,
    console: Console | None = None,
) -> CocoEvaluator:
    """Take what a detector finds in the images of ``data``: the evaluator that holds it, ready to `compute`.

    Args:
        detect: Detects in the images, and calls its argument with the number of images that were done since the last
            call; called when ``data`` and the detector's classes agree.
        data: What to compare with; its classes may be some of the detector's, in any order.
        card: The detector's own.
        max_detections: Maximum number of detections counted per image and class; by default COCO's 100.
        console: Console for progress output; None shows none.

    Raises:
        DataError: If ``data`` have no object to be found, or the detector does not know a class of theirs.
    """
    require_objects(data)
    label_of = match_classes(card, data)
    evaluator = CocoEvaluator(data, max_detections=max_detections or COCO_DETECTIONS)
    with create_bar(console) as bar:
        task = bar.add_task("evaluate", total=len(data))
        try:
            for rows, detections in detect(advancing(bar, task)):
                evaluator.update(rows, [_relabel(each, label_of) for each in detections])
        except KeyboardInterrupt:
            done = f"{int(bar.tasks[task].completed)} of {len(data)} images were looked at"
            raise KeyboardInterrupt(f"{done}, and nothing is written: the figures need all of them") from None
    return evaluator


def check_limits(
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    score: float,
    nms_iou: float | None,
    max_detections: int | None,
) -> None:
    """Refuse a number that is out of its range; the arguments are those of an evaluation."""
    check_between("size", min(preprocessing.size), SMALLEST_SIZE)
    check_between("batch_size", batch_size, 1)
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    if max_detections is not None:
        check_count("max_detections", max_detections, 1)


def match_classes(card: Card, data: DetectionData) -> NDArray[np.int64] | None:
    """The data's label of each of the detector's classes, -1 for one that the data lack; None where all agree.

    A detector without names is taken at its word if it has as many classes as the data.

    Raises:
        DataError: If the data have a class that the detector does not know.
    """
    theirs = card.names
    if theirs == data.names:
        return None
    if not theirs and card.num_classes == len(data.names):
        return None
    unknown = [name for name in data.names if name not in theirs]
    if unknown:
        known = list_names(theirs, most=20) or f"{card.num_classes} classes without names"
        raise DataError(
            f"the detector does not know {list_names(unknown, most=20)}. It knows {known}; the data have "
            f"{list_names(data.names, most=20)}. Evaluate with data of the classes that it was trained on, call the "
            "classes in the annotations as the detector does, or train on these data"
            f"{same_but_for_case(unknown, theirs)}"
        )
    return np.array([data.names.index(name) if name in data.names else -1 for name in theirs])


def _relabel(found: Detections, label_of: NDArray[np.int64] | None) -> Detections:
    """The detections with the data's labels; those of classes that the data lack are left out."""
    if label_of is None:
        return found
    labels = label_of[to_numpy(found.labels)]
    return replace(found, labels=labels)[labels >= 0]


def require_objects(data: DetectionData) -> None:
    """Refuse data that every detector would be equally good on.

    Raises:
        DataError: If there is no object to be found.
    """
    num_boxes = sum(len(record.labels) for record in data.records)
    num_crowds = sum(int(record.crowd.sum()) for record in data.records)
    if num_boxes > num_crowds:
        return
    what = (
        f"all {num_boxes} objects are crowds or marked difficult, which are not to be found"
        if num_boxes
        else f"none of the {len(data)} images has an annotated object"
    )
    raise DataError(
        f"the {data.split} split cannot be evaluated on: {what}. Choose an annotated split with --split, or look at "
        "what is found in these images with: pyrafuse predict MODEL IMAGES"
    )
