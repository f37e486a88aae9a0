"""Detectors side by side, from images to detections, in turns: eager, optimised and exported ones alike, without torch.

contestants on the same images -> milliseconds of each round, beside the machine's own peak -> `RaceFigures`
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.images.sources import Frame
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.inference.predicting import Predictor
from pyrafuse.inference.turns import compare_in_pairs, take_turns

Work = Mapping[str, Callable[[], object]]
Parts = tuple[dict[str, float], float | None]
"""Milliseconds by part, and the peak memory in megabytes."""


class Laboratory(Protocol):
    """What a machine can do at most, and what is in a detector: known where a library looks into both."""

    def peaks(self) -> Mapping[str, tuple[Callable[[], object], float]]:
        """Work that keeps the machine busy, and its billions of operations, by name."""
        ...

    def take_turns(self, work: Work, *, rounds: int, warmup: int) -> dict[str, list[float]]:
        """`pyrafuse.inference.turns.take_turns`, waiting for the device."""
        ...

    def dissect(
        self,
        detector: Predictor,
        images: Sequence[NDArray[np.uint8]],
        settings: Preprocessing,
        score: float,
        rounds: int,
        /,
    ) -> Parts:
        """What each part of ``detector`` takes; nothing where it cannot be seen."""
        ...


class Plain:
    """A laboratory without torch: it times, and sees no parts."""

    def peaks(self) -> Mapping[str, tuple[Callable[[], object], float]]:
        return {}

    def take_turns(self, work: Work, *, rounds: int, warmup: int) -> dict[str, list[float]]:
        return take_turns(work, rounds=rounds, warmup=warmup)

    def dissect(self, *_: object) -> Parts:
        return {}, None


PLAIN = Plain()


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
        peak_memory_mb: Peak memory, by `measure_peak_memory_mb`; none for exported files.
        parameters: Number of parameters, as in `Contestant`.
        gflops: GFLOPs of one image, as in `Contestant`.
        peak_share: Share of the machine's peak, 0..1; none where it is not known.
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
        peak_gflops: Billions of operations a second of the laboratory's work, at the median.
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
    laboratory: Laboratory = PLAIN,
) -> Race:
    """Let contestants detect in the same batch of images in turns.

    Args:
        contestants: One or more, on one device; no two of the same name and backend.
        images: The batch: RGB (H, W, 3).
        size: Side of the network's input in pixels; by default what each was trained at.
        score: Least score of a detection.
        rounds: Timed rounds.
        laboratory: What measures the machine's peak and the parts of detectors; by default neither is told.

    Raises:
        ValueError: If there is no contestant or no round.
    """
    if not contestants:
        raise ValueError("there is no contestant")
    frames = [Frame(f"image{rank}", image) for rank, image in enumerate(images)]
    tasks = laboratory.peaks()
    work: dict[str, Callable[[], object]] = {name: task for name, (task, _) in tasks.items()}
    settings = [each.detector.card.preprocessing_at(size) for each in contestants]
    for rank, each in enumerate(contestants):
        work[str(rank)] = partial(_detect, each.detector, frames, settings[rank], score)
    times = laboratory.take_turns(work, rounds=rounds, warmup=2)
    peak = {name: gflop / median(times[name]) * 1000 for name, (_, gflop) in tasks.items()}
    ranking = sorted(range(len(contestants)), key=lambda rank: median(times[str(rank)]))
    figures = []
    for rank in ranking:
        each, own = contestants[rank], times[str(rank)]
        per_second = 1000 * len(images) / median(own)
        parts, memory = {}, None
        if each.backend != "compile":
            parts, memory = laboratory.dissect(each.detector, images, settings[rank], score, rounds)
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
                peak_share=each.gflops * per_second / max(peak.values()) if each.gflops and peak else None,
                slower_ms=compare_in_pairs(own, times[str(ranking[0])]),
                parts_ms=parts,
            )
        )
    return Race(tuple(figures), peak)


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


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]
