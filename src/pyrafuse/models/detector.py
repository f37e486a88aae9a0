"""A whole detector: backbone, neck and head, and what makes detections and losses of their predictions.

images -> backbone -> pyramid -> neck -> pyramid -> head -> predictions
predictions -> decode -> candidates -> postprocess -> detections
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from pyrafuse.core.detections import Detections
from pyrafuse.core.errors import DataError
from pyrafuse.core.predictions import Candidates
from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.core.pyramid import Backbone, Neck, Pyramid
from pyrafuse.core.targets import Targets
from pyrafuse.data.fitting import fit_image, stack_images
from pyrafuse.data.sources import Frame, open_source
from pyrafuse.postprocess.dense import DensePostprocess

P = TypeVar("P")


@dataclass(frozen=True)
class Card:
    """What a detector must remember to be built again and used: stored in every checkpoint.

    Attributes:
        model: The registered name it was built by.
        options: The arguments that were asked for; plain values.
        defaults: All others that its name stood for then, so that it can be built again when the name stands for
            others; None where that was not written down.
        names: Of the classes.
        category_ids: The data's own id of each class, a number or a text.
        preprocessing: How its images are made ready.
        origin: Where its weights come from, in words.
    """

    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    category_ids: tuple[int | str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    origin: str = ""
    defaults: dict[str, Any] | None = None


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
        self._decode = decode

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return self.card.names

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,  # noqa: ARG002
        *,
        sizes: Sequence[tuple[int, int]] | None = None,  # noqa: ARG002
    ) -> P:
        """Predictions for normalised ``images`` (B, 3, H, W).

        Args:
            images: Normalised.
            targets: What will be learnt; a detector that looks twice samples for it, one that looks once needs none.
            sizes: Height and width that each image takes up of the input; a detector that looks twice looks nowhere
                else. By default all of it.
        """
        return self.head(self.pyramid(images))

    def predict_and_learn(
        self,
        images: Tensor,
        targets: Targets,  # noqa: ARG002
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> tuple[P, P]:
        """Predictions to detect from, and predictions to compute losses of ``targets`` from; arguments as in forward.

        They are the same here. A detector that samples for its targets overrides this, and runs its backbone once.
        """
        predictions = self(images, sizes=sizes)
        return predictions, predictions

    def pyramid(self, images: Tensor) -> Pyramid:
        """What backbone and neck make of normalised ``images`` (B, 3, H, W), for the head.

        Channels lie next to each other in memory: convolutions are faster so, and what heads give is rows of channels.
        """
        return self.neck(self.backbone(images.contiguous(memory_format=torch.channels_last)))

    def decode(self, images: Tensor, *, sizes: Sequence[tuple[int, int]] | None = None) -> Candidates:
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
            images: Normalised.
            postprocess: By default the detector's own.
            sizes: Height and width that each image takes up of the input, the rest being padding; boxes are clipped
                there, where the detector clips. By default all of it.
            scales: Network pixels that a pixel of each image takes up across and down, for suppression that counts in
                pixels of the image. By default 1.
            predictions: What ``forward`` gave for ``images``, where that is known. By default it runs.

        Raises:
            ValueError: As `decode`.
        """
        candidates = self.decode(images, sizes=sizes) if predictions is None else self._decode(predictions)
        size = (images.shape[-2], images.shape[-1])
        found = (postprocess or self.postprocess)(candidates, sizes or [size] * len(images), scales)
        return tuple(replace(f, names=self.names, image_size=size) for f in found)

    def predict(
        self,
        source: Any,
        *,
        score: float = 0.25,
        nms_iou: float | None = None,
        max_detections: int | None = None,
        batch_size: int = 1,
    ) -> list[Detections]:
        """Detections in every image of ``source``, in pixels of the images themselves and cut at their edges.

        Args:
            source: A file, folder, glob, video, webcam index, URL, array, tensor or PIL image, or a list of these.
            score: Least score that is kept.
            nms_iou: Overlap above which two boxes of a class are one object; by default the detector's own.
            max_detections: Kept an image; by default the detector's own.
            batch_size: Images at a time.

        Raises:
            DataError: If there is no such source, or an image in it cannot be read; `predict_frames` goes on instead.
        """
        frames = open_source(source)
        return list(
            self.predict_frames(
                _require_readable(frames),
                batch_size=batch_size,
                score_threshold=score,
                nms_iou=nms_iou,
                max_detections=max_detections,
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
        clip: bool = True,
    ) -> Iterator[Detections]:
        """Detections of each readable frame in turn; frames with an error are passed over.

        Boxes are cut at the edges of the image, and those without any area there dropped, unless ``clip`` is False.
        """
        changes = {"score": score_threshold, "nms_iou": nms_iou, "max_detections": max_detections}
        postprocess = replace(self.postprocess, **{k: v for k, v in changes.items() if v is not None})
        self.eval()
        readable = (frame for frame in frames if frame.image is not None)
        while batch := list(islice(readable, batch_size)):
            found = self._predict_batch(batch, postprocess)
            yield from (detections.clip() for detections in found) if clip else found

    def _predict_batch(self, frames: list[Frame], postprocess: DensePostprocess) -> Iterator[Detections]:
        pixels = [frame.image for frame in frames if frame.image is not None]
        images, fits = zip(*(fit_image(image, self.card.preprocessing) for image in pixels), strict=True)
        sizes = [fit.size for fit in fits]
        prepared = self.card.preprocessing.normalize(stack_images(images).to(self.device), sizes)
        detections = self.detect(
            prepared, postprocess=postprocess, sizes=sizes, scales=[(fit.scale_x, fit.scale_y) for fit in fits]
        )
        for frame, image, fit, found in zip(frames, pixels, fits, detections, strict=True):
            found = found.cpu()
            yield replace(
                found,
                boxes=fit.to_image(found.boxes),
                image_size=(fit.height, fit.width),
                source=frame.name,
                image=torch.from_numpy(image).permute(2, 0, 1),
            )


def _require_readable(frames: Iterable[Frame]) -> Iterator[Frame]:
    for frame in frames:
        if frame.error:
            raise DataError(frame.error)
        yield frame
