"""What fewer bits cost: average precision of the file and of the detector, on the same images.

annotated images -> `DataFeeds` -> file, and graph run by torch -> `EvaluationResult` -> `Loss`
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Interface
from pyrafuse.base.images.fitting import Fit
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.core.predictions import Candidates
from pyrafuse.data.loading.datasets import read_record
from pyrafuse.evaluation.collecting import Found, collect, require_objects
from pyrafuse.evaluation.result import EvaluationResult
from pyrafuse.export.batches import fit_batch, lay_in, repeat_image
from pyrafuse.export.registry import Feeds, Run
from pyrafuse.postprocess.dense import DensePostprocess

MAX_AP_LOSS = 0.01
"""AP that a file of fewer bits may lose unless something else is said."""


class DataFeeds(Sequence[Feeds]):
    """The images of a data set as inputs by name, one after the other, each read when it is asked for.

    Args:
        data: Annotated images.
        interface: What goes in; an image fills all places of a fixed batch.
        preprocessing: How images are fitted.
    """

    def __init__(self, data: DetectionData, interface: Interface, preprocessing: Preprocessing) -> None:
        self.data = data
        self.interface = interface
        self._preprocessing = preprocessing
        stride = interface.stride
        rounded = (-(-preprocessing.size[0] // stride) * stride, -(-preprocessing.size[1] // stride) * stride)
        self._size = interface.size or rounded

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Feeds:  # type: ignore[override]  # of one place, never of a slice
        if not index < len(self):
            raise IndexError(index)
        image = read_record(self.data.records[index])
        count = self.interface.batch or 1
        if self.interface.input == "image":
            return repeat_image(image, self.interface, count)
        return fit_batch([image] * count, self.interface, self._preprocessing, self._size)

    def to_image(self, index: int, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) that were found in an image, in pixels of the image itself."""
        if self.interface.input == "image":
            return boxes
        record = self.data.records[index]
        return Fit.of(record.height, record.width, lay_in(self._preprocessing, self._size)).to_image(boxes)


@dataclass(frozen=True)
class Loss:
    """Figures of the detector and of the file on the same images.

    Attributes:
        eager: Those of the detector.
        file: Those of the file.
    """

    eager: EvaluationResult
    file: EvaluationResult

    @property
    def num_small(self) -> int:
        """Number of small objects."""
        return next(size.num_objects for size in self.eager.sizes if size.name == "small")

    def complain(self, most: float) -> str:
        """Why the file may not leave if it may lose ``most``; empty if it may."""
        if self.eager.ap < MAX_AP_LOSS:
            return (
                f"the detector itself has AP {self.eager.ap:.4f} on these images, and no loss shows there: take images "
                "of what it was trained to find"
            )
        lost = self.eager.ap - self.file.ap, self.eager.ap_small - self.file.ap_small  # NaN without small objects
        return (
            f"it loses more than {most:g}: {self.tell()}; allow more with --max-ap-loss"
            if max(value for value in lost if not math.isnan(value)) > most
            else ""
        )

    def tell(self) -> str:
        """In a line."""
        small = (
            f"of {self.num_small} small objects {self.file.ap_small:.4f} instead of {self.eager.ap_small:.4f}"
            if self.num_small
            else "the data have no small object, so nothing is known of these"
        )
        return (
            f"AP {self.file.ap:.4f} instead of {self.eager.ap:.4f} on {self.eager.num_images} images, "
            f"{self.eager.ap - self.file.ap:+.4f} lost; {small}"
        )


def split_in_two(data: DetectionData, tell: Callable[[str], None]) -> tuple[DetectionData, DetectionData]:
    """Two halves of the images: those that judge int8, and those that it takes its ranges from; ``tell`` is told.

    Raises:
        PyrafuseError: If there is one image.
        DataError: If those that judge have no object.
    """
    if len(data) < 2:
        raise PyrafuseError(
            "int8 takes its ranges from other images than those that judge it, and the data have one image: add images"
        )
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    half = len(data) // 2
    judging, ranges = (
        replace(data, records=tuple(data.records[i] for i in sorted(part))) for part in (order[half:], order[:half])
    )
    require_objects(judging)
    tell(f"no other images for the ranges of int8: {len(ranges)} of {len(data)}, drawn at random, give them alone")
    return judging, ranges


def measure(run: Run, feeds: DataFeeds, card: Card, *, console: Console | None = None) -> EvaluationResult:
    """Average precision of what ``run``, the file or the graph, finds in annotated images; ``card`` is the detector's.

    The progress is shown on ``console``.

    Raises:
        DataError: If there is no object to be found, or the detector does not know a class of the data's.
    """
    take = _SELECTIONS[feeds.interface.output]

    def detect(advance: Callable[[float], None]) -> Iterator[Found]:
        for index in range(len(feeds)):
            found = take(run(feeds[index]), feeds.interface)
            yield [index], [replace(found, boxes=feeds.to_image(index, found.boxes))]
            advance(1)

    return collect(detect, feeds.data, card=card, console=console).compute()


def _take_nms(values: Feeds, interface: Interface) -> Detections:  # noqa: ARG001
    count = int(values["count"][0])
    boxes, scores, labels, levels = (
        torch.from_numpy(values[name][0, :count]) for name in ("boxes", "scores", "labels", "levels")
    )
    return Detections(boxes, scores, labels, levels)


def _take_rows(values: Feeds, interface: Interface) -> Detections:
    rows = torch.from_numpy(values["output"])[:1]
    labels = rows[..., 5].long()
    num_classes = int(labels.max()) + 1 if labels.numel() else 1
    scores = rows.new_zeros(1, rows.shape[1], num_classes).scatter(2, labels[..., None], rows[..., 4:5])
    return _select(rows[..., :4], scores, interface)


def _take_raw(values: Feeds, interface: Interface) -> Detections:
    columns = torch.from_numpy(values["output0"])[:1].transpose(1, 2)
    centers, halves = columns[..., :2], columns[..., 2:4] / 2
    return _select(torch.cat((centers - halves, centers + halves), dim=2), columns[..., 4:], interface)


def _select(boxes: Tensor, scores: Tensor, interface: Interface) -> Detections:
    select = DensePostprocess(score=interface.score, nms_iou=interface.nms_iou, max_detections=interface.max_detections)
    levels = torch.zeros(boxes.shape[1], dtype=torch.int64)
    return select(Candidates(boxes=boxes, scores=scores, levels=levels))[0]


_SELECTIONS: dict[str, Callable[[Feeds, Interface], Detections]] = {
    "nms": _take_nms,
    "rows": _take_rows,
    "raw": _take_raw,
}
"""Detections of the first image, by form of output; maps of levels are nothing that AP could be measured of."""
