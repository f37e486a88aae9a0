"""How good a detector is on a data set: its own preprocessing, classes matched by name, then COCO's figures."""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from pyrafuse.base.errors import DataError
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.loading.loaders import create_eval_loader, default_num_workers
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.collecting import Found, check_limits, collect
from pyrafuse.evaluation.result import EvaluationResult
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
        detector: Detector on the device to compute on.
        data: What to compare with; its classes may be some of the detector's, in any order.
        size: Side, or height and width, of the network's input in pixels; by default what the detector was trained at.
        score: Least score that is kept.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: Maximum number of detections per image, and of those counted per class; by default the
            detector's own number, and COCO's 100 a class.
        batch_size: Images at a time.
        workers: Processes that load; by default as many as there are cores for it.
        console: Console for progress output; None shows none.

    Raises:
        DataError: If ``data`` have no object to be found, the detector does not know a class of theirs, or an image
            cannot be read.
        PyrafuseError: If a number is out of its range.
    """
    preprocessing = detector.card.preprocessing
    if size is not None:
        preprocessing = preprocessing.at_size(size)
    check_limits(preprocessing, batch_size=batch_size, score=score, nms_iou=nms_iou, max_detections=max_detections)
    changes = {"score": score, "nms_iou": nms_iou, "max_detections": max_detections}
    postprocess = replace(detector.postprocess, **{k: v for k, v in changes.items() if v is not None})
    loader = create_eval_loader(
        data,
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=default_num_workers() if workers is None else workers,
    )
    detector.eval()

    def detect(advance: Callable[[float], None]) -> Iterator[Found]:
        for item in loader:
            laid = LaidBatch.of(item.batch.images, item.fits, preprocessing, device=detector.device)
            yield item.batch.indices.tolist(), detector.detect_in(laid, postprocess=postprocess)
            advance(len(item.fits))

    return collect(detect, data, card=detector.card, max_detections=max_detections, console=console)


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
