"""Detectors side by side, from images to detections, in turns: eager, optimised and exported ones alike.

contestants on the same images -> milliseconds of each round, beside the machine's own peak -> `RaceFigures`
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pyrafuse.base.images.sources import Frame
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image, stack_images
from pyrafuse.inference.measuring import measure_latencies, measure_peak_memory_mb, time_in_turns
from pyrafuse.inference.predicting import Predictor
from pyrafuse.models.detector import Detector
from pyrafuse.models.laying import LaidBatch
from pyrafuse.models.two_stage import TwoStageDetector

GEMM, CONVOLUTION = "matrix product", "3x3 convolution"


@dataclass(frozen=True)
class Contestant:
    """A detector in one form.

    Attributes:
        name: Name of the model.
        backend: Name of the backend, such as ``eager`` or ``onnx``.
        detector: Ready to predict.
        gflops: GFLOPs of one image; none where they are not known.
        parameters: Numbers that were learnt; none where they are not known.
    """

    name: str
    backend: str
    detector: Predictor
    gflops: float | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class RaceFigures:
    """What one contestant takes.

    Attributes:
        name: Name of the model.
        backend: Name of the backend.
        latency_ms: Median of a batch, from pixels to detections.
        p95_ms: 95 of 100 batches take no longer.
        images_per_second: At the median.
        peak_memory_mb: See `measure_peak_memory_mb`; none of exported files.
        parameters: Number of parameters, as in `Contestant`.
        gflops: GFLOPs of one image, as in `Contestant`.
        peak_share: Share of the machine's peak, 0..1.
        slower_ms: How much longer a round takes than the fastest contestant's: least, median and most with a
            confidence of 95 %; within the noise where that holds 0.
        parts_ms: Milliseconds by part, of contestants in torch that are not compiled.
    """

    name: str
    backend: str
    latency_ms: float
    p95_ms: float
    images_per_second: float
    peak_memory_mb: float | None
    parameters: int | None
    gflops: float | None
    peak_share: float | None
    slower_ms: tuple[float, float, float]
    parts_ms: dict[str, float] = field(default_factory=dict)

    @property
    def is_within_noise(self) -> bool:
        """Whether it may be as fast as the fastest one."""
        return self.slower_ms[0] <= 0


@dataclass(frozen=True)
class Race:
    """What all contestants take, the fastest first, and what the machine can do at most.

    Attributes:
        figures: One a contestant.
        peak_gflops: Billions of operations a second of a matrix product and of a 3x3 convolution, at their medians.
    """

    figures: tuple[RaceFigures, ...]
    peak_gflops: dict[str, float]


def race(
    contestants: Sequence[Contestant],
    images: Sequence[NDArray[np.uint8]],
    *,
    size: int | None = None,
    score: float = 0.25,
    rounds: int = 20,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Race:
    """Let contestants detect in the same batch of images in turns.

    Args:
        contestants: One or more, on ``device``; no two of the same name and backend.
        images: The batch: RGB (H, W, 3).
        size: Side of the network's input in pixels; by default what each was trained at.
        score: Least score of a detection.
        rounds: Timed rounds.
        device: Where contestants in torch compute.
        dtype: What the machine's peak is measured in.

    Raises:
        ValueError: If there is no contestant or no round.
    """
    if not contestants:
        raise ValueError("there is no contestant")
    frames = [Frame(f"image{rank}", image) for rank, image in enumerate(images)]
    tasks = _peak_tasks(torch.device(device), dtype)
    work: dict[str, Callable[[], object]] = {name: task for name, (task, _) in tasks.items()}
    settings = [each.detector.card.preprocessing_at(size) for each in contestants]
    for rank, each in enumerate(contestants):
        work[str(rank)] = partial(_detect, each.detector, frames, settings[rank], score)
    times = time_in_turns(work, rounds=rounds, warmup=2, device=device)
    peak = {name: gflop / median(times[name]) * 1000 for name, (_, gflop) in tasks.items()}
    ranking = sorted(range(len(contestants)), key=lambda rank: median(times[str(rank)]))
    figures = []
    for rank in ranking:
        each, own = contestants[rank], times[str(rank)]
        per_second = 1000 * len(images) / median(own)
        parts, memory = {}, None
        if isinstance(each.detector, Detector) and each.backend != "compile":
            parts, memory = _measure_parts(each.detector, images, settings[rank], score, rounds, device)
        figures.append(
            RaceFigures(
                name=each.name,
                backend=each.backend,
                latency_ms=median(own),
                p95_ms=_quantile(own, 0.95),
                images_per_second=per_second,
                peak_memory_mb=memory,
                parameters=each.parameters,
                gflops=each.gflops,
                peak_share=None if each.gflops is None else each.gflops * per_second / max(peak.values()),
                slower_ms=compare_in_pairs(own, times[str(ranking[0])]),
                parts_ms=parts,
            )
        )
    return Race(tuple(figures), peak)


def measure_peak(device: torch.device | str, dtype: torch.dtype, *, rounds: int = 20) -> dict[str, float]:
    """Billions of operations a second of a matrix product and of a 3x3 convolution, at their medians."""
    tasks = _peak_tasks(torch.device(device), dtype)
    latencies = measure_latencies({name: task for name, (task, _) in tasks.items()}, rounds=rounds, device=device)
    return {name: gflop / latencies[name] * 1000 for name, (_, gflop) in tasks.items()}


def compare_in_pairs(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Least, median and most of the median difference of paired rounds with a confidence of 95 %.

    From the order of the differences alone, whatever their distribution: load makes some rounds very long.
    """
    differences = sorted(a - b for a, b in zip(ours, theirs, strict=True))
    count = len(differences)
    rank = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return differences[rank], median(differences), differences[count - 1 - rank]


def make_pictures(count: int, *, height: int = 480, width: int = 640) -> list[NDArray[np.uint8]]:
    """Smooth random RGB images (H, W, 3), the same ones each time."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8)
    return [np.asarray(cv2.resize(x, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8) for x in coarse]


def _detect(detector: Predictor, frames: Sequence[Frame], preprocessing: Preprocessing, score: float) -> object:
    return list(
        detector.predict_frames(
            frames, batch_size=len(frames), score_threshold=score, preprocessing=preprocessing, keep_images=False
        )
    )


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


def _measure_parts(
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


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
