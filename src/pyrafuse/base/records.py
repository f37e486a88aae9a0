"""A data set as plain values: what is in each image, and what the classes are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """Where a tile lies in the image of its file.

    Attributes:
        left: Pixels to its left.
        top: Pixels above it.
        width: Width of the file's image in pixels.
        height: Height of the file's image in pixels.
    """

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class ImageRecord:
    """One image and its G objects.

    Attributes:
        path: The image file.
        image_id: Its id in the annotations, or its rank where they have none; results are written with it.
        width: In pixels, of the image as it is looked at (after its EXIF orientation).
        height: Height in pixels.
        boxes: (G, 4) float32, xyxy in pixels of that upright image.
        labels: (G,) int64, 0..K-1.
        crowd: (G,) bool: COCO's ``iscrowd``, VOC's ``difficult``. Never to be found; finding it is not wrong.
        areas: (G,) float32, pixels: the annotation's own area where it has one (COCO's size classes use it).
        window: Where this is a tile of the file's image; width, height and boxes are the tile's. None is all of it.
    """

    path: Path
    image_id: int | str
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]
    window: Window | None = None


@dataclass(frozen=True)
class DetectionData:
    """One split of a data set.

    Attributes:
        records: The images, in a stable order.
        names: Name of each class; the label is the rank.
        category_ids: The annotations' own id of each class (COCO ids may have gaps, or be texts); results are written
            with it.
        layout: Registered name of its annotation format: ``coco``, ``voc``, ``yolo``.
        split: Name of the split: ``train``, ``val``, ``test``.
    """

    records: Sequence[ImageRecord]
    names: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    layout: str
    split: str

    def __len__(self) -> int:
        return len(self.records)
