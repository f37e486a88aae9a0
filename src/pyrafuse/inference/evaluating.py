"""How good an exported detector is on a data set, without torch: images read ahead -> predictions -> COCO's figures."""

from collections.abc import Callable, Iterator

from rich.console import Console

from pyrafuse.base.images.ahead import make_ahead
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.records import DetectionData
from pyrafuse.base.views.detecting import count_ahead, predict_telling
from pyrafuse.data.images.of_records import read_record
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.evaluation.collecting import Found, check_limits, collect


def detect_all(
    detector: Predictor,
    data: DetectionData,
    *,
    size: int | tuple[int, int] | None = None,
    score: float = EVALUATION_SCORE,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    console: Console | None = None,
) -> CocoEvaluator:
    """Detect in every image of ``data``: the evaluator that holds what was found, ready to `compute`.

    Args:
        detector: Detector, or anything else that predicts.
        data: What to compare with; its classes may be some of the detector's, in any order.
        size: Side, or height and width, of the network's input in pixels; by default the detector's own.
        score: Least score that is kept.
        nms_iou: Overlap above which two boxes of a class are one object; the detector's own when none.
        max_detections: Maximum number of detections per image, and of those counted per class; by default the
            detector's own number, and COCO's 100 a class.
        batch_size: Images at a time.
        workers: 0 reads each image when its turn comes; by default a thread reads ahead.
        console: Console for progress output; None shows none.

    Raises:
        DataError: If ``data`` have no object to be found, the detector does not know a class of theirs, or an image
            cannot be read.
        PyrafuseError: If a number is out of its range, or an exported file cannot do what is asked.
    """
    preprocessing = detector.card.preprocessing_at(size)
    check_limits(preprocessing, batch_size=batch_size, score=score, nms_iou=nms_iou, max_detections=max_detections)
    frames = (Frame(str(record.path), read_record(record)) for record in data.records)

    def detect(advance: Callable[[float], None]) -> Iterator[Found]:
        found = predict_telling(
            detector,
            frames if workers == 0 else make_ahead(frames, depth=count_ahead(detector, batch_size) + 1),
            advance,
            batch_size=batch_size,
            score_threshold=score,
            nms_iou=nms_iou,
            max_detections=max_detections,
            preprocessing=preprocessing,
            keep_images=False,
            clip=False,
        )
        return (((row,), (each,)) for row, each in enumerate(found))

    return collect(detect, data, card=detector.card, max_detections=max_detections, console=console)
