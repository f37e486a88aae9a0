"""One image and its objects on the way to the network."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.boxes import clip_boxes
from pyrafuse.base.records import ImageRecord


@dataclass(frozen=True)
class Sample:
    """An image and its G objects; operations return a new one and leave the arrays of the old one alone.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (G, 4) float32, xyxy in pixels of ``image``.
        labels: (G,) int64, 0..K-1.
        weights: (G,) float32, the mixup weight of each object; 1 without mixup.
        crowd: (G,) bool, true for a region in which detections are neither right nor wrong.
        size: Height and width in pixels that the picture takes up of ``image``, at the top left of its padding; None
            where there is none.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    size: tuple[int, int] | None = None

    @classmethod
    def of(cls, record: ImageRecord, image: NDArray[np.uint8]) -> "Sample":
        """The sample of ``record``; boxes are cut at the image's edges, and those of which nothing is left go.

        Boxes are scaled where ``image`` was kept smaller than its file.
        """
        height, width = image.shape[:2]
        scales = np.asarray((width / record.width, height / record.height) * 2, np.float32)
        boxes = clip_boxes(record.boxes * scales, (height, width))
        sample = cls(image, boxes, record.labels, np.ones(len(boxes), np.float32), record.crowd)
        return sample.keep(np.all(boxes[:, 2:] > boxes[:, :2], axis=1))

    def keep(self, rows: NDArray[np.bool_]) -> "Sample":
        """The same image with the objects of ``rows`` alone."""
        return replace(
            self, boxes=self.boxes[rows], labels=self.labels[rows], weights=self.weights[rows], crowd=self.crowd[rows]
        )

    def has_objects(self) -> bool:
        """Whether there is anything to be found."""
        return not self.crowd.all()
