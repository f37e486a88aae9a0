"""A detector that was exported: images -> the file's inputs -> engine -> `Detections` of numpy arrays."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import CheckpointError, PyrafuseError, check_between, check_count
from pyrafuse.base.exported import Interface
from pyrafuse.base.found import PREDICT_REMARKS, Found, only_one, require_readable
from pyrafuse.base.habits import hint_keywords
from pyrafuse.base.images.ahead import read_ahead
from pyrafuse.base.images.pixels import Channels
from pyrafuse.base.images.sources import Frame, open_source
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import printable
from pyrafuse.base.views.cutting import Views
from pyrafuse.base.views.detecting import count_ahead, in_views
from pyrafuse.runtime.engines.registry import Engine
from pyrafuse.runtime.laying import lay
from pyrafuse.runtime.outputs import MAX_CANDIDATES, Limits, read_outputs


class ExportedDetector:
    """An exported file that predicts as `Detector` does, with the same names and arguments, without PyTorch.

    Args:
        engine: The file, ready to run.
        card: The detector's own.
        interface: What the file takes and gives.
        path: The file, for messages.
    """

    def __init__(self, engine: Engine, card: Card, interface: Interface, *, path: Path) -> None:
        if interface.size is not None and card.preprocessing.fit != "keep_ratio":
            card = replace(card, preprocessing=card.preprocessing.at_size(interface.size))
        self.card = card
        self.interface = interface
        self.path = path
        self._engine = engine

    def called(self, name: str) -> "ExportedDetector":
        """The same detector, whose messages say ``name`` in place of its file."""
        return ExportedDetector(self._engine, self.card, self.interface, path=Path(name))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.card.names

    def __call__(self, image: Any, **options: Any) -> Detections:
        """The `Detections` in whatever is one image to `predict`, which takes the same options.

        Raises:
            PyrafuseError: If the source has not exactly one image.
        """
        return only_one(self.predict(image, **options))

    @hint_keywords(PREDICT_REMARKS)
    def predict(
        self,
        source: Any,
        *,
        score: float = 0.25,
        classes: Sequence[str | int] | str | int | None = None,
        size: int | tuple[int, int] | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        batch: int = 1,
        device: str | None = None,
        channels: Channels = "rgb",
        stride: int = 1,
        views: Views | None = None,
        keep_images: bool = False,
    ) -> Found:
        """Detections in each image of ``source``, one by one, as `Detector.predict` gives them.

        Args:
            source: Source, as `Detector.predict` takes it.
            score: Least score that is kept, 0..1; not below that of the file.
            classes: Names or numbers of the classes that are kept; by default all.
            size: Side, or height and width, of the network's input in pixels, where the file takes any.
            nms_iou: Overlap above which two boxes of a class are one object, where the file does not suppress.
            max_detections: Largest number of detections an image; not above that of the file.
            batch: Images at a time; a file of a fixed number takes that many.
            device: ``cpu`` or ``auto``: exported files run on the processor.
            channels: Order of the colours of arrays; files and PIL images have their own.
            stride: Step in frames: only every so many-th frame of a video or a camera is read.
            views: Tiles, flipped copies and other scales to detect in, each image's put together; by default the image
                alone.
            keep_images: Whether the detections keep the pixels, for `Detections.draw` and `Detections.crop`.

        Raises:
            DataError: If there is no such source; while iterating, if an image cannot be read.
            PyrafuseError: If a number is out of its range, there is no such class, or the file cannot do it.
        """
        if device not in (None, "cpu", "auto"):
            raise PyrafuseError(f"no device {device!r} for {self.path}: exported files run on the processor, give cpu")
        labels = self.card.find_labels(classes)
        check_count("batch", batch, 1)
        preprocessing = self.card.preprocessing_at(size)
        self._limits(score, nms_iou, max_detections, labels)  # refuses what the file cannot do
        self._check_size(preprocessing)
        predictor, frames = in_views(self, views), open_source(source, stride=stride, channels=channels)
        return Found(
            predictor.predict_frames(
                require_readable(read_ahead(frames, batch=count_ahead(predictor, batch))),
                batch_size=batch,
                score_threshold=score,
                nms_iou=nms_iou,
                max_detections=max_detections,
                labels=labels,
                preprocessing=preprocessing,
                keep_images=keep_images,
            )
        )

    def predict_frames(
        self,
        frames: Iterable[Frame],
        *,
        batch_size: int = 1,
        score_threshold: float | None = None,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        labels: tuple[int, ...] = (),
        preprocessing: Preprocessing | None = None,
        keep_images: bool = True,
        clip: bool = True,
    ) -> Generator[Detections, None, None]:
        """Detections of each readable frame in turn; as `Detector.predict_frames`.

        Raises:
            PyrafuseError: If the file cannot do what is asked.
        """
        limits = self._limits(score_threshold, nms_iou, max_detections, labels)
        preprocessing = preprocessing or self.card.preprocessing
        self._check_size(preprocessing)
        return self._predict_frames(frames, batch_size, limits, preprocessing, keep_images, clip=clip)

    def _predict_frames(
        self,
        frames: Iterable[Frame],
        batch_size: int,
        limits: Limits,
        preprocessing: Preprocessing,
        keep_images: bool,
        *,
        clip: bool,
    ) -> Generator[Detections, None, None]:
        readable = (frame for frame in frames if frame.image is not None)
        while batch := list(islice(readable, self.interface.batch or batch_size)):
            for frame, found in self._predict_batch(batch, limits, preprocessing):
                assert frame.image is not None
                image = frame.image.transpose(2, 0, 1) if keep_images else None
                placed = replace(found, names=self.names, source=frame.name, image=image)
                yield placed.clip() if clip else placed

    def _predict_batch(
        self, frames: Sequence[Frame], limits: Limits, preprocessing: Preprocessing
    ) -> Iterator[tuple[Frame, Detections]]:
        """Each frame with its detections, in its own pixels."""
        takes_images = self.interface.input == "image"  # of one size at a time
        for _, group in groupby(frames, key=lambda frame: frame.image.shape if takes_images else None):  # pyright: ignore[reportOptionalMemberAccess]
            alike = list(group)
            laid = lay([frame.image for frame in alike if frame.image is not None], preprocessing, self.interface)
            try:
                outputs = self._engine.run(self._with_score(laid.feeds, limits.score))
                found = read_outputs(outputs, len(alike), self.interface, limits)
            except MemoryError:
                raise
            except Exception as error:  # engines' errors have no common base
                shapes = ", ".join(f"{name} {values.shape}" for name, values in laid.feeds.items())
                raise PyrafuseError(
                    f"{self.path} cannot be run on {shapes}: {printable(error, limit=300)}; export it anew"
                ) from error
            for frame, fit, each in zip(alike, laid.fits, found, strict=True):
                self._check_labels(each)
                yield frame, replace(each, boxes=fit.to_image(each.boxes), image_size=(fit.height, fit.width))

    def _with_score(self, feeds: dict[str, NDArray[Any]], score: float) -> dict[str, NDArray[Any]]:
        """The inputs, with the least score of each image where the file applies it."""
        if self.interface.threshold != "input":
            return feeds
        return {**feeds, "score": np.full(len(feeds["images"]), score, np.float32)}

    def _limits(
        self, score: float | None, nms_iou: float | None, max_detections: int | None, labels: tuple[int, ...]
    ) -> Limits:
        """What is kept, as far as the file can do it."""
        check_between("score", score, 0, 1)
        check_between("nms_iou", nms_iou, 0, 1)
        check_between("max_detections", max_detections, 1)
        own = self.interface
        if own.threshold == "fixed" and score not in (None, own.score):
            raise PyrafuseError(
                f"{self.path} gives what scores {own.score:g}, and no other score can be applied to its rows: give "
                f"score {own.score:g}, export it with --score {score:g}, or with --output nms"
            )
        if score is not None and score < own.score:
            raise PyrafuseError(
                f"score {score:g} is below {own.score:g}, the least that {self.path} keeps: give {own.score:g} or "
                f"more, or export it with --score {score:g}"
            )
        if own.output == "nms":
            if nms_iou is not None and nms_iou != own.nms_iou:
                raise PyrafuseError(
                    f"{self.path} suppresses by itself, with nms_iou {own.nms_iou:g}: leave nms_iou out, or export it "
                    f"with --nms-iou {nms_iou:g}"
                )
            if max_detections is not None and max_detections > own.max_detections:
                raise PyrafuseError(
                    f"max_detections {max_detections} is above {own.max_detections}, the most that {self.path} gives: "
                    f"give {own.max_detections} or less, or export it with --max-detections {max_detections}"
                )
        given = {} if self.card.spec is None else self.card.spec.postprocess.options
        candidates = given.get("max_candidates")
        return Limits(
            score=own.score if score is None else score,
            nms_iou=own.nms_iou if nms_iou is None else nms_iou,
            max_detections=max_detections or own.max_detections,
            max_candidates=candidates if isinstance(candidates, int) and candidates > 0 else MAX_CANDIDATES,
            multi_label=given.get("multi_label") is True,
            labels=labels,
            is_scored=own.threshold != "after",
        )

    def _check_size(self, preprocessing: Preprocessing) -> None:
        """Refuse another size than the file can take."""
        if preprocessing == self.card.preprocessing:
            return
        own, (height, width) = self.interface, preprocessing.size
        if own.input == "image" or own.size is not None:
            fixed = "{} x {}".format(*self.card.preprocessing.size)
            raise PyrafuseError(
                f"{self.path} computes at {fixed} pixels alone, not at {height} x {width}: leave size out, or "
                "export it with --input fitted and free sizes"
            )
        if preprocessing.fit != "keep_ratio" and (height % own.stride or width % own.stride):
            raise PyrafuseError(
                f"size {height} x {width} is no multiple of {own.stride}, which {self.path} needs: give "
                f"{-(-height // own.stride) * own.stride} x {-(-width // own.stride) * own.stride}"
            )

    def _check_labels(self, found: Detections) -> None:
        """Refuse detections of classes that the card does not know."""
        count = self.card.num_classes
        if count and len(found) and not (found.labels.min() >= 0 and found.labels.max() < count):
            raise CheckpointError(
                f"{self.path} finds class {found.labels.max()}, and its card knows {count} classes: export it anew"
            )
