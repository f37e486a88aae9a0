"""Detections and losses on the validation images, which leave the training as it is.

batch -> detections in pixels of the image, losses -> average precision, means over the images
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrafuse.base.records import DetectionData
from pyrafuse.core.losses import LevelLosses
from pyrafuse.core.over_processes import each_process_alone, gather
from pyrafuse.core.targets import Targets
from pyrafuse.data.loading.loaders import EvalBatch
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.result import COCO_DETECTIONS, EvaluationResult
from pyrafuse.models.detector import Detector
from pyrafuse.models.laying import LaidBatch
from pyrafuse.training.step import level_losses


@torch.inference_mode()
def validate(
    detector: Detector,
    batches: Iterable[EvalBatch],
    data: DetectionData,
    *,
    max_detections: int | None,
    device: torch.device,
    tell: Callable[[], None],
) -> tuple[EvaluationResult, dict[str, float]]:
    """Evaluate ``detector`` on the validation images of all processes.

    Args:
        detector: Detector; it is in evaluation mode afterwards.
        batches: Images of this process.
        data: Validation images and their objects.
        max_detections: Maximum number of detections per image, and of each class counted; None for the detector's own,
            and COCO's 100 of a class.
        device: Where ``detector`` is.
        tell: Called after each batch.

    Returns:
        The evaluation; and its figures with the losses, as they are logged.
    """
    detector.eval()
    evaluator = CocoEvaluator(data, max_detections=max_detections or COCO_DETECTIONS)
    losses = MeanLosses()
    for batch in batches:
        validate_batch(detector, batch.to(device, non_blocking=True), evaluator, losses, max_detections=max_detections)
        tell()
    rows, sums = zip(*gather((evaluator.rows(), losses.sums())), strict=True)
    evaluator = CocoEvaluator(data, max_detections=evaluator.max_detections)
    for part in rows:
        evaluator.merge(part)
    result = evaluator.compute()
    figures = {f"val/{name}": value for name, value in result.figures().items()}
    figures["val/ap"] = chosen_by(result)
    figures |= {f"val/{name}": value for name, value in mean_losses(sums).items()}
    return result, {name: value for name, value in figures.items() if not math.isnan(value)}


def chosen_by(result: EvaluationResult) -> float:
    """What the best checkpoint is chosen by: average precision, 0 where the images hold no objects."""
    return 0.0 if math.isnan(result.ap) else result.ap


def validate_batch(
    detector: Detector,
    batch: EvalBatch,
    evaluator: CocoEvaluator,
    losses: "MeanLosses",
    *,
    max_detections: int | None,
) -> None:
    """Detect in one batch of validation images, and compute its losses."""
    images, targets = batch.batch.images, batch.batch.targets
    laid = LaidBatch.of(images, batch.fits, detector.card.preprocessing, device=images.device)
    # in float32 and down to unlikely detections, as `evaluate` does: the two must agree
    postprocess = replace(detector.postprocess, score=EVALUATION_SCORE)
    if max_detections is not None:
        postprocess = replace(postprocess, max_detections=max_detections)
    with validating(images.device):
        predictions, to_learn = detector.predict_and_learn(laid.images, targets, sizes=laid.sizes)
        found = detector.detect_in(laid, postprocess=postprocess, predictions=predictions)
        add_losses(losses, detector, to_learn, targets)
    evaluator.update(batch.batch.indices.tolist(), found)


def add_losses(losses: "MeanLosses", detector: Detector, predictions: Any, targets: Targets) -> None:
    """Count in the losses of a batch."""
    losses.add(level_losses(detector, predictions, targets), num_images=len(targets.labels))


@contextmanager
def validating(device: torch.device) -> Iterator[None]:
    """Within the block samples are drawn from the same seed each time, and the training's random numbers stay.

    Each process divides by its own objects: the last batches of processes need not be as many.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), each_process_alone():
        torch.default_generator.manual_seed(0)
        if devices:
            torch.cuda.manual_seed(0)
        yield


class MeanLosses:
    """Losses of batches, weighed by their images; they stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._batches: list[tuple[dict[str, Tensor], int]] = []

    def add(self, report: LevelLosses, *, num_images: int) -> None:
        """Count in the losses of a batch."""
        self._batches.append(({name: value.detach() for name, value in report.terms.items()}, num_images))

    def sums(self) -> dict[str, float]:
        """Losses times images of all batches added here, by name; ``images`` is their number."""
        if not self._batches:
            return {}
        names = list(self._batches[0][0])
        values = torch.stack([torch.stack([losses[name].float() for name in names]) for losses, _ in self._batches])
        counts = torch.tensor([count for _, count in self._batches], dtype=torch.float64)
        totals = (values.cpu().double() * counts[:, None]).sum(dim=0)
        return {**dict(zip(names, totals.tolist(), strict=True)), "images": counts.sum().item()}


def mean_losses(sums: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """``loss``, the mean over images of the sum of all terms, and ``loss_NAME`` of each; empty without images.

    Args:
        sums: What `MeanLosses.sums` gave in each process, in the same order in all of them.
    """
    parts = [part for part in sums if part]
    if not parts:
        return {}
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    count = total.pop("images")
    terms = {f"loss_{name}": value / count for name, value in total.items()}
    return {"loss": sum(terms.values()), **terms}
