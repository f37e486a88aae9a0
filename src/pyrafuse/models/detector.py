"""A whole detector: backbone, neck and head, and what makes detections and losses of their predictions.

images -> backbone -> pyramid -> neck -> pyramid -> head -> predictions
predictions -> decode -> candidates -> postprocess -> detections
"""

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from pyrafuse.base.card import CARD_KEY, PREFIX, Card, card_to_dict
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError, check_between, check_count
from pyrafuse.base.found import PREDICT_REMARKS, Found, only_one, require_readable
from pyrafuse.base.habits import hint_keywords
from pyrafuse.base.images.ahead import read_ahead
from pyrafuse.base.images.pixels import Channels
from pyrafuse.base.images.sources import Frame, open_source
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.base.views.cutting import Views
from pyrafuse.base.views.detecting import count_ahead, in_views
from pyrafuse.core.devices import choose_device
from pyrafuse.core.predictions import Candidates
from pyrafuse.core.pyramid import Backbone, Neck, Pyramid
from pyrafuse.core.storage import write_tensors
from pyrafuse.core.targets import Targets
from pyrafuse.data.images.fitting import fit_image, stack_images
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules
from pyrafuse.evaluation.coco import EVALUATION_SCORE
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.models.evaluating import evaluate, read_whole
from pyrafuse.models.laying import LaidBatch
from pyrafuse.models.optimizing import Precision, optimize
from pyrafuse.postprocess.dense import DensePostprocess

P = TypeVar("P")

Sizes = Sequence[tuple[int, int]] | Tensor
"""Height and width in pixels of each of B images; in a graph (B, 2)."""


class Detector(nn.Module, Generic[P]):
    """Backbone, neck and head in a row; ``forward`` gives the head's predictions in training and evaluation alike.

    Args:
        backbone: Images -> pyramid.
        neck: Pyramid -> pyramid.
        head: Pyramid -> predictions.
        decode: Predictions -> candidates.
        criterion: (predictions, targets) -> losses; used by training alone.
        postprocess: Candidates -> detections, with the default thresholds.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: nn.Module,
        *,
        decode: Callable[[P], Candidates],
        criterion: nn.Module,
        postprocess: DensePostprocess,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.criterion = criterion
        self.postprocess = postprocess
        self.card = Card()
        self.is_optimized = False
        self.computes_in: torch.dtype | None = None
        self._decode = decode

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.card.names

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """``forward`` for a batch of normalised tensors; for anything else, the `Detections` in one image.

        ``detector("image.jpg", score=0.4)`` takes whatever is one image to `predict`, and its options.

        Raises:
            PyrafuseError: If the source has not exactly one image.
        """
        if isinstance(images, Tensor) and images.ndim == 4:
            with torch.autocast(images.device.type, self.computes_in) if self.computes_in else nullcontext():
                return super().__call__(images, *args, **options)
        return only_one(self.predict(images, *args, **options))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts.

        Raises:
            PyrafuseError: If an optimised detector is to be trained.
        """
        if mode and self.is_optimized:
            raise PyrafuseError("an optimised detector cannot be trained: train the one that optimized() was called of")
        return super().train(mode)

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,  # noqa: ARG002
        *,
        sizes: Sizes | None = None,  # noqa: ARG002
    ) -> P:
        """Predictions for normalised ``images`` (B, 3, H, W).

        Args:
            images: Normalised images.
            targets: What will be learnt; a two-stage detector samples for it, a one-stage one needs none.
            sizes: Height and width that each image takes up of the input; a two-stage detector proposes nowhere
                else. By default all of it.
        """
        return self.head(self.pyramid(images))

    def predict_and_learn(
        self,
        images: Tensor,
        targets: Targets,  # noqa: ARG002
        *,
        sizes: Sizes | None = None,
    ) -> tuple[P, P]:
        """Predictions to detect from, and predictions to compute losses of ``targets`` from; arguments as in forward.

        They are the same here. A detector that samples for its targets overrides this, and runs its backbone once.
        """
        predictions = self(images, sizes=sizes)
        return predictions, predictions

    def pyramid(self, images: Tensor) -> Pyramid:
        """What backbone and neck make of normalised ``images`` (B, 3, H, W), for the head.

        Channels lie next to each other in memory: convolutions are faster so, and what heads give is rows of channels.

        Raises:
            PyrafuseError: If ``images`` are no tensor.
        """
        if not isinstance(images, Tensor):
            raise PyrafuseError(
                f"a detector is called with a batch of normalised tensors, not with a {type(images).__name__}; for the "
                "detections in one image take next(detector.predict(image))"
            )
        return self.neck(self.backbone(images.contiguous(memory_format=torch.channels_last)))

    def decode(self, images: Tensor, *, sizes: Sizes | None = None) -> Candidates:
        """Every candidate for normalised ``images`` (B, 3, H, W), before threshold and NMS; ``sizes`` as in forward.

        Raises:
            ValueError: If ``images`` are of another rank, have not 3 channels or are no floats.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images of shape {tuple(images.shape)} and {images.dtype} cannot be decoded: normalised floats "
                "(B, 3, H, W) are needed, as card.preprocessing.normalize makes them; predict takes any image"
            )
        return self._decode(self(images, sizes=sizes))

    @torch.inference_mode()
    def detect(
        self,
        images: Tensor,
        *,
        postprocess: DensePostprocess | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[tuple[float, float]] | None = None,
        predictions: P | None = None,
    ) -> tuple[Detections, ...]:
        """Detections in each of the normalised ``images`` (B, 3, H, W), in pixels of these.

        The detector's mode is left as it is: call ``eval()`` first, as `load` does.

        Args:
            images: Normalised images.
            postprocess: Decoding and suppression; by default the detector's own.
            sizes: Height and width that each image takes up of the input, the rest being padding; boxes are clipped
                there, where the detector clips. By default all of it.
            scales: Network pixels that a pixel of each image takes up across and down, for suppression that counts in
                pixels of the image. By default 1.
            predictions: What ``forward`` gave for ``images``, where that is known. By default it runs.

        Raises:
            ValueError: On the same faults as `decode`.
        """
        candidates = self.decode(images, sizes=sizes) if predictions is None else self._decode(predictions)
        size = (images.shape[-2], images.shape[-1])
        found = (postprocess or self.postprocess)(candidates, sizes or [size] * len(images), scales)
        return tuple(replace(f, names=self.names, image_size=size) for f in found)

    def detect_in(
        self, batch: LaidBatch, *, postprocess: DensePostprocess | None = None, predictions: P | None = None
    ) -> tuple[Detections, ...]:
        """As `detect`, in pixels of the images themselves: the one way of predict, evaluate and validation."""
        found = self.detect(
            batch.images, postprocess=postprocess, sizes=batch.sizes, scales=batch.scales, predictions=predictions
        )
        return batch.to_images(found)

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
        device: str | torch.device | None = None,
        channels: Channels = "rgb",
        stride: int = 1,
        views: Views | None = None,
        keep_images: bool = False,
    ) -> Found:
        """Detections in each image of ``source``, one by one; arrays are RGB, or ``channels="bgr"`` as OpenCV's.

        Boxes are in pixels of the image itself and cut at its edges. What comes is an iterator: the next images are
        read while the detector works, a camera's as they are asked for, and the source is closed when the loop over it
        is left.

        Args:
            source: A file, folder, glob, video, camera's number, URL, array, tensor or PIL image, or a list of these;
                `open_source` tells of each.
            score: Least score that is kept, 0..1.
            classes: Names or numbers of the classes that are kept; by default all.
            size: Side, or height and width, of the network's input in pixels; by default what it was trained at.
            nms_iou: Overlap above which two boxes of a class are one object; by default the detector's own.
            max_detections: Largest number of detections an image; by default the detector's own.
            batch: Images at a time.
            device: ``cpu``, ``cuda``, ``cuda:1`` ...: the detector moves there, and stays. By default it stays where
                it is.
            channels: Order of the colours of arrays and tensors; files and PIL images have their own.
            stride: Step in frames: only every so many-th frame of a video or a camera is read.
            views: Tiles, flipped copies and other scales to detect in, each image's put together; by default the image
                alone.
            keep_images: Whether the detections keep the pixels, for `Detections.draw`, `Detections.crop` and pictures
                in a notebook; thousands of kept images fill the memory.

        Raises:
            DataError: If there is no such source; while iterating, if an image cannot be read (`predict_frames` goes
                on instead).
            PyrafuseError: If a number is out of its range or there is no such class or device.
        """
        check_between("score", score, 0, 1)
        check_between("nms_iou", nms_iou, 0, 1)
        check_between("max_detections", max_detections, 1)
        check_count("batch", batch, 1)
        labels = self.card.find_labels(classes)
        preprocessing = self.card.preprocessing_at(size)
        frames = open_source(source, stride=stride, channels=channels)
        if device is not None:
            self.to(choose_device(device))
        predictor = in_views(self, views)
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

    @hint_keywords({"data": "the data set is the first argument", "plots": "`pyrafuse evaluate` writes them"})
    def evaluate(
        self,
        data: str | os.PathLike[str] | DetectionData,
        *,
        split: str = "val",
        size: int | tuple[int, int] | None = None,
        score: float = EVALUATION_SCORE,
        nms_iou: float | None = None,
        batch: int = 8,
        workers: int | None = None,
        device: str | torch.device | None = None,
        rules: ReadingRules = DEFAULT_RULES,
    ) -> EvaluationResult:
        """COCO's average precision on ``data``, as `pyrafuse evaluate` measures it.

        Args:
            data: A folder, a data.yaml, a COCO JSON file, ``shapes``, or a split that was read.
            split: ``train``, ``val`` or ``test``, where data are named.
            size: Side, or height and width, of the network's input in pixels; by default what it was trained at.
            score: Least score of a detection that counts, 0..1.
            nms_iou: Overlap above which two boxes of a class are one object; by default the detector's own.
            batch: Images at a time.
            workers: Processes that load; by default as many as there are cores for it.
            device: The detector moves there, and stays; by default it stays where it is.
            rules: How the data are read where annotations leave a choice.

        Raises:
            DataError: If there are no such data, images of them are missing, or have a class that the detector does
                not know. What else was wrong with them is warned of.
            PyrafuseError: If a number is out of its range or there is no such device.
        """
        if not isinstance(data, DetectionData):
            data = read_whole(data, split, rules)
        if device is not None:
            self.to(choose_device(device))
        return evaluate(self, data, size=size, score=score, nms_iou=nms_iou, batch_size=batch, workers=workers)

    def optimized(self, *, precision: Precision = "fp32", compiled: bool = False) -> Self:
        """A copy in evaluation mode that predicts faster: batch norms are folded into the convolutions before them.

        The copy shares nothing with this detector. It cannot be trained or saved. In fp32 its outputs differ from this
        detector's by rounding alone.

        Args:
            precision: What convolutions compute in: ``fp32``, or ``bf16``, which is faster on processors and GPUs with
                instructions for it, and moves scores and boxes a little.
            compiled: Whether torch.compile makes code for it: minutes at the first batch, and again at other sizes.

        Raises:
            PyrafuseError: If there is no such precision.
        """
        side = self.backbone.sizes.only or math.lcm(2 * max(self.neck.features.strides), self.backbone.sizes.unit)
        images = torch.zeros(1, 3, side, side, device=self.device)
        twin = optimize(self, images, precision=precision, compiled=compiled)
        twin.is_optimized = True
        twin.computes_in = torch.bfloat16 if precision == "bf16" else None
        return twin

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and card to ``path``: all that `load` needs.

        Raises:
            PyrafuseError: If the file cannot be written; nothing half-written is left. If the detector is optimised.
        """
        if self.is_optimized:
            raise PyrafuseError("an optimised detector cannot be saved: save the one that optimized() was called of")
        state = {f"{PREFIX}{key}": value.detach().cpu() for key, value in self.state_dict().items()}
        write_tensors(path, {CARD_KEY: {"card": card_to_dict(self.card)}, "state_dict": state})

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
        """Detections of each readable frame in turn; frames with an error are passed over.

        Boxes are cut at the edges of the image, and those without any area there dropped, unless ``clip`` is False.
        Those of classes other than ``labels`` are left out, unless that is empty.
        """
        changes = {"score": score_threshold, "nms_iou": nms_iou, "max_detections": max_detections, "labels": labels}
        postprocess = replace(self.postprocess, **{k: v for k, v in changes.items() if v is not None})
        self.eval()
        readable = (frame for frame in frames if frame.image is not None)
        while batch := list(islice(readable, batch_size)):
            found = self._predict_batch(batch, postprocess, preprocessing or self.card.preprocessing, keep_images)
            yield from (detections.clip() for detections in found) if clip else found

    def _predict_batch(
        self, frames: list[Frame], postprocess: DensePostprocess, preprocessing: Preprocessing, keep_images: bool
    ) -> Iterator[Detections]:
        pixels = [frame.image for frame in frames if frame.image is not None]
        images, fits = zip(*(fit_image(image, preprocessing) for image in pixels), strict=True)
        laid = LaidBatch.of(stack_images(images), fits, preprocessing, device=self.device)
        detections = self.detect_in(laid, postprocess=postprocess)
        for frame, image, found in zip(frames, pixels, detections, strict=True):
            yield replace(
                found,
                source=frame.name,
                image=torch.from_numpy(image).permute(2, 0, 1) if keep_images else None,
            )
