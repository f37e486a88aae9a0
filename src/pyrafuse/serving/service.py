"""Detectors by name, and what a server does with them: request -> `Asked` -> pixels -> `Batcher` -> `Detections`."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from pydantic import BaseModel

from pyrafuse import __version__
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError, unknown_name
from pyrafuse.base.images.pixels import Picture
from pyrafuse.base.images.reading import NoImageError, TooManyPixelsError, read_picture
from pyrafuse.inference.predicting import Predictor
from pyrafuse.runtime.detector import ExportedDetector
from pyrafuse.serving.asking import Asked, Options, Refusal, read_asked, read_body
from pyrafuse.serving.batching import Batcher, Choice
from pyrafuse.serving.limits import DEFAULT_LIMITS, Limits


class Model(BaseModel):
    """A detector of this server; size is height and width of its input in pixels."""

    name: str
    detector: str
    file: str
    classes: list[str]
    size: tuple[int, int]


class Health(BaseModel):
    """Whether the server answers, and how much it does at the moment."""

    status: str
    version: str
    models: int
    requests: int
    seconds: float


class Service:
    """Detectors by name, and what a server does with them.

    Args:
        detectors: Ready to predict, the default one first.
        limits: What one client may ask.
        score: Least score that is kept where a request names none, 0..1.
        files: Name of the file of each detector, for `/models`.
    """

    def __init__(
        self,
        detectors: Mapping[str, Predictor],
        limits: Limits = DEFAULT_LIMITS,
        *,
        score: float = 0.25,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self.limits, self.score, self.files = limits, score, files or {}
        self.num_answered = self.num_at_work = 0
        self._since = time.monotonic()
        self.batchers = {
            name: Batcher(_named(detector, name), batch_size=limits.batch, wait_ms=limits.wait_ms)
            for name, detector in detectors.items()
        }
        # decoded images are large: so many wait at most that the next batch of each detector is ready
        self._room = asyncio.Semaphore(2 * limits.batch * max(len(detectors), 1))

    def warm_up(self) -> None:
        """Detect once with each detector: the first time takes longest."""
        for batcher in self.batchers.values():
            height, width = batcher.detector.card.preprocessing.size
            batcher.detect(np.zeros((height, width, 3), np.uint8), Choice()).result()

    def close(self) -> None:
        """End the threads of the detectors."""
        for batcher in self.batchers.values():
            batcher.close()

    def find(self, name: str | None) -> tuple[str, Batcher]:
        """The detector of that name, by default the first.

        Raises:
            Refusal: If there is none.
        """
        if not self.batchers:
            raise Refusal(404, "there is no model here: start the server with one")
        name = next(iter(self.batchers)) if name is None else name
        if name not in self.batchers:
            raise Refusal(404, str(unknown_name("model", name, self.batchers)))
        return name, self.batchers[name]

    async def answer(self, request: Request) -> dict[str, Any]:
        """What `/predict` says to ``request``.

        Raises:
            Refusal: If it is not answered.
        """
        if self.num_at_work >= self.limits.concurrency:
            raise Refusal(503, f"{self.limits.concurrency} requests are at work already: try again in a second")
        self.num_at_work += 1
        start, has_arrived = time.perf_counter(), False
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = await read_body(request, self.limits.max_bytes)
                has_arrived = True
                asked = await read_asked(request, body)
                name, batcher = self.find(asked.options.model)
                choice = self._choose(asked.options, batcher)
                async with self._room:
                    picture = await anyio.to_thread.run_sync(self._read, asked)
                    found = await self._detect(batcher, picture.pixels, choice)
        except TimeoutError as error:
            late = f"the answer took longer than {self.limits.seconds:g} s: try again, or send a smaller image"
            slow = f"the request took longer than {self.limits.seconds:g} s to arrive"
            raise Refusal(504, late) if has_arrived else Refusal(408, slow) from error
        finally:
            self.num_at_work -= 1
        self.num_answered += 1
        told = found.to_dict()
        del told["source"]
        return {
            "model": name,
            **told,
            "notes": list(picture.notes),
            "milliseconds": round((time.perf_counter() - start) * 1000, 2),
        }

    def _choose(self, options: Options, batcher: Batcher) -> Choice:
        try:
            labels = batcher.detector.card.find_labels(options.classes)
        except PyrafuseError as error:
            raise Refusal(400, str(error)) from error
        score = self.score if options.score is None else options.score
        return Choice(score, labels, options.nms_iou, options.max_detections)

    def _read(self, asked: Asked) -> Picture:
        try:
            return read_picture(asked.name, data=asked.data, max_pixels=self.limits.max_pixels)
        except NoImageError as error:
            raise Refusal(415, str(error)) from error
        except TooManyPixelsError as error:
            raise Refusal(413, str(error)) from error
        except DataError as error:
            raise Refusal(400, str(error)) from error

    async def _detect(self, batcher: Batcher, pixels: NDArray[np.uint8], choice: Choice) -> Detections:
        try:
            return await asyncio.wrap_future(batcher.detect(pixels, choice))
        except PyrafuseError as error:  # an exported file cannot do all that a checkpoint can
            raise Refusal(400, str(error)) from error
        except MemoryError as error:
            raise Refusal(503, "there is no memory left for this image: try again, or send a smaller one") from error

    def models(self) -> list[Model]:
        """What `/models` says."""
        return [
            Model(
                name=name,
                detector=card.model,
                file=self.files.get(name, ""),
                classes=list(card.names) or [str(label) for label in range(card.num_classes)],
                size=card.preprocessing.size,
            )
            for name, batcher in self.batchers.items()
            for card in [batcher.detector.card]
        ]

    def health(self) -> Health:
        """What `/health` says."""
        return Health(
            status="ok",
            version=__version__,
            models=len(self.batchers),
            requests=self.num_at_work,
            seconds=round(time.monotonic() - self._since, 1),
        )


def _named(detector: Predictor, name: str) -> Predictor:
    """``detector``, whose refusals tell a client its name here and not where its file lies."""
    return detector.called(name) if isinstance(detector, ExportedDetector) else detector


def name_models(files: list[str]) -> list[str]:
    """A short name for each file, no two alike: that of its folder for best.ckpt and last.ckpt, else its own stem."""
    names: list[str] = []
    for file in files:
        *folders, last = file.replace("\\", "/").rstrip("/").split("/")
        stem = last.rpartition(".")[0] or last
        name = folders[-1] if stem in {"best", "last"} and folders else stem
        number, base = 2, name
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names
