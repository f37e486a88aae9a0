"""How good a detector is on a data set: its own preprocessing, classes matched by name, then COCO's figures."""

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from pyrafuse.base.card import SMALLEST_SIZE
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, check_between, check_count, same_but_for_case
from pyrafuse.base.records import DetectionData
from pyrafuse.base.terminal import Terminal
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.loading.loaders import create_eval_loader, default_num_workers
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.result import COCO_DETECTIONS, EvaluationResult
from pyrafuse.models.laying import LaidBatch

if TYPE_CHECKING:
    from pyrafuse.models.detector import Detector


def evaluate(
    detector: "Detector[Any]",
    data: DetectionData,
    *,
    size: int | tuple[int, int] | None = None,
    score: float = EVALUATION_SCORE,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Detect in every image of ``data`` and judge what was found; see `detect_all`."""
    return detect_all(
        detector,
        data,
        size=size,
        score=score,
        nms_iou=nms_iou,
        max_detections=max_detections,
        batch_size=batch_size,
        workers=workers,
        console=console,
    ).compute()


@torch.inference_mode()
def detect_all(
    detector: "Detector[Any]",
    data: DetectionData,
    *,
    size: int | tuple[int, int] | None = None,
    score: float = EVALUATION_SCORE,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    console: Console | None = None,
) -> CocoEvaluator:
    """Detect in every image of ``data``: the evaluator that holds what was found, ready to `compute`.

    Args:
        detector: On the device to compute on.
        data: What to compare with; its classes may be some of the detector's, in any order.
        size: Side, or height and width, of the network's input in pixels; by default what the detector was trained at.
        score: Least score that is kept.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: So many detections an image are kept, and of a class counted; by default the detector's own
            number, and COCO's 100 a class.
        batch_size: Images at a time.
        workers: Processes that load; by default as many as there are cores for it.
        console: Where to show the progress; nowhere when none.

    Raises:
        DataError: If ``data`` have no object to be found, the detector does not know a class of theirs, or an image
            cannot be read.
        PyrafuseError: If a number is out of its range.
    """
    _require_objects(data)
    label_of = match_classes(detector, data)
    preprocessing = detector.card.preprocessing
    if size is not None:
        preprocessing = preprocessing.at_size(size)
    check_between("size", min(preprocessing.size), SMALLEST_SIZE)
    check_between("batch_size", batch_size, 1)
    check_between("score", score, 0, 1)
    check_between("nms_iou", nms_iou, 0, 1)
    if max_detections is not None:
        check_count("max_detections", max_detections, 1)
    postprocess = replace(detector.postprocess, score=score)
    if nms_iou is not None:
        postprocess = replace(postprocess, nms_iou=nms_iou)
    if max_detections is not None:
        postprocess = replace(postprocess, max_detections=max_detections)
    loader = create_eval_loader(
        data,
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=default_num_workers() if workers is None else workers,
    )
    evaluator = CocoEvaluator(data, max_detections=max_detections or COCO_DETECTIONS)
    detector.eval()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console or Terminal(quiet=True), disable=console is None, transient=True) as bar:
        task = bar.add_task("evaluate", total=len(data))
        try:
            for item in loader:
                laid = LaidBatch.of(item.batch.images, item.fits, preprocessing, device=detector.device)
                upright = [_relabel(found, label_of) for found in detector.detect_in(laid, postprocess=postprocess)]
                evaluator.update(item.batch.indices.tolist(), upright)
                bar.advance(task, len(upright))
        except KeyboardInterrupt:
            done = f"{bar.tasks[task].completed:.0f} of {len(data)} images were looked at"
            raise KeyboardInterrupt(f"{done}, and nothing is written: the figures need all of them") from None
    return evaluator


def _require_objects(data: DetectionData) -> None:
    """Refuse data that every detector would be equally good on."""
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


def match_classes(detector: "Detector[Any]", data: DetectionData) -> Tensor | None:
    """The data's label of each of the detector's classes, -1 for one that the data lack; None where all agree.

    A detector without names is taken at its word if it has as many classes as the data.

    Raises:
        DataError: If the data have a class that the detector does not know.
    """
    theirs = detector.names
    if theirs == data.names:
        return None
    num_classes = detector.card.num_classes
    if not theirs and num_classes == len(data.names):
        return None
    unknown = [name for name in data.names if name not in theirs]
    if unknown:
        known = _list(theirs) or f"{num_classes} classes without names"
        raise DataError(
            f"the detector does not know {_list(unknown)}. It knows {known}; the data have {_list(data.names)}. "
            "Evaluate with data of the classes that it was trained on, call the classes in the annotations as the "
            f"detector does, or train on these data{same_but_for_case(unknown, theirs)}"
        )
    return torch.tensor([data.names.index(name) if name in data.names else -1 for name in theirs])


def to_coco_results(evaluator: CocoEvaluator) -> str:
    """Everything that was found as COCO results, JSON: ``image_id``, ``category_id``, ``bbox`` (xywh), ``score``."""
    data = evaluator.data
    rows: list[dict[str, Any]] = []
    for image, x1, y1, x2, y2, score, label in evaluator.rows().tolist():
        rows.append(
            {
                "image_id": data.records[int(image)].image_id,
                "category_id": data.category_ids[int(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
        )
    return json.dumps(rows)


def _relabel(found: Detections, label_of: Tensor | None) -> Detections:
    """The detections with the data's labels; those of classes that the data lack are left out."""
    if label_of is None:
        return found
    labels = label_of[found.labels]
    return replace(found, labels=labels)[labels >= 0]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def read_whole(data: str | os.PathLike[str], split: str, rules: ReadingRules) -> DetectionData:
    """The split of ``data``, with a warning of what was wrong with it.

    Raises:
        DataError: If there is none, or images are missing: what is measured on the rest is no figure of it.
    """
    reading = read_split(data, split, rules=rules)
    problems = reading.problems
    for problem in problems:
        if problem.severity == "error" and problem.kind == "missing image":
            raise DataError(f"{problem}; put it there, or measure on the others with ReadingRules(missing='skip')")
    if problems:
        warnings.warn(
            f"{len(problems)} problems with {data} (`pyrafuse data check` lists them); the first: {problems[0]}: "
            f"{problems[0].remedy}",
            stacklevel=4,
        )
    return reading.data
