"""What every detector does, whatever it runs on: frames -> detections."""

from collections.abc import Generator, Iterable
from typing import Protocol

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.preprocessing import Preprocessing


class Predictor(Protocol):
    """What predicts: a `Detector`, or an exported one that runs without torch."""

    @property
    def card(self) -> Card:
        """What the detector is."""
        ...

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
        """Detections of each readable frame in turn."""
        ...
