"""The one way through a detector of every prediction: frames -> detections -> `Finding`s, in the same order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from pyrafuse.base.card import Card
from pyrafuse.base.errors import check_between
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.views.detecting import predict_telling
from pyrafuse.inference.writers.registry import Finding


@dataclass(frozen=True)
class Settings:
    """What is asked of a detector.

    Attributes:
        score: Least score that is kept, 0..1; the detector's own threshold when none.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: Largest number of detections an image; the detector's own when none.
        batch: Images at a time.
        size: Side, or height and width, of the network's input in pixels; by default what it was trained at.
        classes: Names or numbers of the classes that are kept; by default all.

    Raises:
        PyrafuseError: If a number is out of its range.
    """

    score: float | None = 0.25
    nms_iou: float | None = None
    max_detections: int | None = None
    batch: int = 1
    size: int | tuple[int, int] | None = None
    classes: Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("score", self.score, 0, 1),
            ("nms_iou", self.nms_iou, 0, 1),
            ("batch", self.batch, 1, inf),
            ("max_detections", self.max_detections, 1, inf),
        ):
            check_between(name, value, least, most)

    def resolve(self, card: Card) -> tuple[tuple[int, ...], Preprocessing]:
        """The labels that are kept, all if there are none, and the preprocessing, of a detector with ``card``.

        Raises:
            PyrafuseError: If there is no such class, or no input of that size.
        """
        return card.find_labels(self.classes), card.preprocessing_at(self.size)


def find_in(
    detector: Predictor,
    frames: Iterable[Frame],
    settings: Settings,
    *,
    pass_over: Callable[[Frame], object],
    note: Callable[[Frame], object] = lambda frame: None,  # noqa: ARG005
    tell: Callable[[float], object] = lambda images: None,  # noqa: ARG005
    keep_images: bool = False,
) -> Iterator[Finding]:
    """What is found in each readable frame, in the order of the frames.

    Args:
        detector: Predicts.
        frames: Where from.
        settings: What is asked.
        pass_over: Is given each frame that could not be read.
        note: Is given each other frame before it is predicted on.
        tell: Is told what is done, in images.
        keep_images: Whether findings keep the pixels.
    """
    labels, preprocessing = settings.resolve(detector.card)
    waiting: deque[Frame] = deque()  # read, not yet predicted on: a detector answers in order, batch by batch

    def observe() -> Iterator[Frame]:
        for frame in frames:
            if frame.image is None:
                pass_over(frame)
            else:
                note(frame)
                waiting.append(Frame(frame.name, None, index=frame.index, fps=frame.fps))
                yield frame

    for detections in predict_telling(
        detector,
        observe(),
        tell,
        batch_size=settings.batch,
        score_threshold=settings.score,
        nms_iou=settings.nms_iou,
        max_detections=settings.max_detections,
        labels=labels,
        preprocessing=preprocessing,
        keep_images=keep_images,
    ):
        frame = waiting.popleft()
        video = frame.name.rpartition("#")[0] if frame.fps else ""
        yield Finding(detections, frame.index, video, frame.fps or 0.0)
