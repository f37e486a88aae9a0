"""Requests that come at the same time, detected in together: image -> queue -> batch -> detector -> its own answer.

One thread a detector runs everything that is asked of it, so that no two uses of a detector ever meet.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.detections import Detections
from pyrafuse.base.images.sources import Frame
from pyrafuse.inference.predicting import Predictor

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """What is kept of the detections in an image; None is the detector's own.

    Attributes:
        score: Least score, 0..1.
        labels: Classes that are kept; empty for all.
        nms_iou: Overlap above which two boxes of a class are one object.
        max_detections: Largest number of detections.
    """

    score: float | None = None
    labels: tuple[int, ...] = ()
    nms_iou: float | None = None
    max_detections: int | None = None


@dataclass(frozen=True, eq=False)
class _Job:
    """An image, or a function to call; jobs of one key may be a batch, and None stands alone."""

    key: Any
    image: NDArray[np.uint8] | None
    call: Callable[[], Any] | None
    future: "Future[Any]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """One detector, and the thread that runs it.

    Args:
        detector: Ready to predict.
        batch_size: Most images at a time.
        wait_ms: Longest time that an image waits for others to fill its batch.
    """

    def __init__(self, detector: Predictor, *, batch_size: int = 8, wait_ms: float = 5.0) -> None:
        self.detector = detector
        self._batch_size, self._wait_s = batch_size, wait_ms / 1000
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def detect(self, image: NDArray[np.uint8], choice: Choice) -> "Future[Detections]":
        """The detections in ``image`` (H, W, 3), in its pixels; a future that is cancelled is not computed."""
        # an input whose size follows the image is padded to the largest of its batch: equal sizes share one
        shape = image.shape if self.detector.card.preprocessing.fit == "keep_ratio" else None
        return self._put(_Job((choice, shape), image, None))

    def call(self, function: Callable[[], T]) -> "Future[T]":
        """What ``function`` gives, called while nothing else uses the detector."""
        return self._put(_Job(None, None, function))

    def close(self) -> None:
        """Finish what is being computed, and give up what waits."""
        with self._changed:
            self._is_closed = True
            for job in self._waiting:
                job.future.cancel()
            self._changed.notify_all()
        self._thread.join()

    def _put(self, job: _Job) -> "Future[Any]":
        with self._changed:
            if self._is_closed:
                job.future.cancel()
            else:
                self._waiting.append(job)
                self._changed.notify_all()
        return job.future

    def _take(self) -> list[_Job]:
        """The next batch; nothing once this is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._is_closed and self._waiting[0].key is not None:
                left = self._waiting[0].since + self._wait_s - time.monotonic()
                self._changed.wait_for(lambda: self._is_closed or len(self._alike()) == self._batch_size, max(left, 0))
            if self._is_closed:
                return []
            taken = self._alike()
            for job in taken:
                self._waiting.remove(job)
            return taken

    def _alike(self) -> list[_Job]:
        """The first job that waits, and those that may be computed with it."""
        first = self._waiting[0]
        if first.key is None:
            return [first]
        return [job for job in self._waiting if job.key == first.key][: self._batch_size]

    def _work(self) -> None:
        while taken := self._take():
            jobs = [job for job in taken if job.future.set_running_or_notify_cancel()]
            if not jobs:
                continue
            try:
                results = self._run(jobs)
            except BaseException as error:  # the thread lives on, and whoever waits is told
                for job in jobs:
                    job.future.set_exception(error)
            else:
                for job, result in zip(jobs, results, strict=True):
                    job.future.set_result(result)

    def _run(self, jobs: list[_Job]) -> list[Any]:
        if jobs[0].call is not None:
            return [jobs[0].call()]
        choice: Choice = jobs[0].key[0]
        found = self.detector.predict_frames(
            [Frame("", job.image) for job in jobs],
            batch_size=len(jobs),
            score_threshold=choice.score,
            nms_iou=choice.nms_iou,
            max_detections=choice.max_detections,
            labels=choice.labels,
            keep_images=False,
        )
        return list(found)
