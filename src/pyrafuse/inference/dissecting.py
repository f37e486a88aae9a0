"""What torch tells of a machine and of a detector: the peak of its arithmetic, milliseconds by part, peak memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image, stack_images
from pyrafuse.inference.measuring import measure_latencies, measure_peak_memory_mb, time_in_turns
from pyrafuse.inference.predicting import Predictor
from pyrafuse.inference.racing import Parts, Work
from pyrafuse.models.detector import Detector
from pyrafuse.models.laying import LaidBatch
from pyrafuse.models.two_stage import TwoStageDetector

GEMM, CONVOLUTION = "matrix product", "3x3 convolution"


@dataclass(frozen=True)
class TorchLaboratory:
    """`pyrafuse.inference.racing.Laboratory` that looks into detectors in torch.

    Attributes:
        device: Where they compute.
        dtype: What the machine's peak is measured in.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32

    def peaks(self) -> Mapping[str, tuple[Callable[[], object], float]]:
        return _peak_tasks(self.device, self.dtype)

    def take_turns(self, work: Work, *, rounds: int, warmup: int) -> dict[str, list[float]]:
        return time_in_turns(work, rounds=rounds, warmup=warmup, device=self.device)

    def dissect(
        self,
        detector: Predictor,
        images: Sequence[NDArray[np.uint8]],
        settings: Preprocessing,
        score: float,
        rounds: int,
    ) -> Parts:
        if not isinstance(detector, Detector):
            return {}, None
        return measure_parts(detector, images, settings, score, rounds, self.device)


def measure_peak(device: torch.device | str, dtype: torch.dtype, *, rounds: int = 20) -> dict[str, float]:
    """Billions of operations a second of a matrix product and of a 3x3 convolution, at their medians."""
    tasks = _peak_tasks(torch.device(device), dtype)
    latencies = measure_latencies({name: task for name, (task, _) in tasks.items()}, rounds=rounds, device=device)
    return {name: gflop / latencies[name] * 1000 for name, (_, gflop) in tasks.items()}


def _peak_tasks(device: torch.device, dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], float]]:
    """Work that keeps the arithmetic units busy, and its billions of operations."""
    side, channels, cells = 1024, 256, 64
    matrix = torch.full((side, side), 0.5, device=device, dtype=dtype)
    maps = torch.full((1, channels, cells, cells), 0.5, device=device, dtype=dtype)
    weight = torch.full((channels, channels, 3, 3), 0.01, device=device, dtype=dtype)
    maps, weight = (x.contiguous(memory_format=torch.channels_last) for x in (maps, weight))
    return {
        GEMM: (lambda: matrix @ matrix, 2 * side**3 / 1e9),
        CONVOLUTION: (lambda: F.conv2d(maps, weight, padding=1), 2 * (channels * cells * 3) ** 2 / 1e9),
    }


def measure_parts(
    detector: Detector[Any],
    images: Sequence[NDArray[np.uint8]],
    preprocessing: Preprocessing,
    score: float,
    rounds: int,
    device: torch.device | str,
) -> tuple[dict[str, float], float]:
    """Median milliseconds of each part of a batch, in the order in which data flow, and the peak memory."""
    encoded = [cv2.imencode(".jpg", image)[1] for image in images]

    def fit() -> LaidBatch:
        fitted, fits = zip(*(fit_image(image, preprocessing) for image in images), strict=True)
        return LaidBatch.of(stack_images(fitted), fits, preprocessing, device=detector.device)

    with torch.inference_mode():
        batch = fit()
        laid = batch.images.contiguous(memory_format=torch.channels_last)
        maps = detector.backbone(laid)
        pyramid = detector.neck(maps)
        predictions = detector(batch.images, sizes=batch.sizes)
        memory = measure_peak_memory_mb(detector, batch.images)
    postprocess = replace(detector.postprocess, score=score)
    work: dict[str, Callable[[], object]] = {
        "reading": lambda: [cv2.imdecode(code, cv2.IMREAD_COLOR) for code in encoded],
        "fitting": fit,
        "backbone": lambda: detector.backbone(laid),
        "neck": lambda: detector.neck(maps),
        "head": lambda: detector.head(pyramid),
        "suppression": lambda: detector.detect_in(batch, postprocess=postprocess, predictions=predictions),
    }
    if isinstance(detector, TwoStageDetector):
        work["whole"] = lambda: detector(batch.images, sizes=batch.sizes)
    parts = measure_latencies(work, rounds=rounds, warmup=1, device=device)
    if "whole" in parts:
        rest = parts.pop("whole") - sum(parts[name] for name in ("backbone", "neck", "head"))
        parts["regions"] = max(rest, 0.0)
    return parts, memory
