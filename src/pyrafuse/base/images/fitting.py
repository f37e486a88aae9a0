"""An image and its boxes, to the network's input and back."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyrafuse.base.arrays import Array
from pyrafuse.base.boxes import clip_boxes, scale_boxes
from pyrafuse.base.preprocessing import Interpolation, Preprocessing

_FILTERS = {"antialias": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Fit:
    """How an image was laid into the network's input: at its top left corner, scaled.

    Attributes:
        scale_x: Network pixels an image pixel, along the width.
        scale_y: The same ratio along the height.
        height: Height of the image itself, in pixels.
        width: Width of the image itself, in pixels.
    """

    scale_x: float
    scale_y: float
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in network pixels that the image takes up; the rest is padding."""
        return round(self.height * self.scale_y), round(self.width * self.scale_x)

    @classmethod
    def of(cls, height: int, width: int, preprocessing: Preprocessing) -> "Fit":
        """How an image of ``height`` and ``width`` is laid."""
        inner_height, inner_width = compute_inner_size(height, width, preprocessing)
        return cls(inner_width / width, inner_height / height, height, width)

    def to_network(self, boxes: Array) -> Array:
        """Boxes (G, 4) xyxy in pixels of the image, in pixels of the network's input."""
        return scale_boxes(boxes, self.scale_x, self.scale_y)

    def to_image(self, boxes: Array, *, clip: bool = False) -> Array:
        """Boxes (N, 4) xyxy in pixels of the network's input, in pixels of the image; cut at its edges if ``clip``."""
        boxes = scale_boxes(boxes, 1 / self.scale_x, 1 / self.scale_y)
        return clip_boxes(boxes, (self.height, self.width)) if clip else boxes


def resize(image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) uint8, with one of Pillow's filters or bilinearly with OpenCV's lack of one.

    Pillow's filters go along the rows first, then along the columns, in every version of Pillow.
    """
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "opencv":
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    picture = Image.fromarray(image)
    for size in (width, image.shape[0]), (width, height):  # Pillow 13 would begin with the rows of tall images
        picture = picture.resize(size, _FILTERS[interpolation])
    return np.array(picture)


def fit_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], Fit]:
    """Turn an image (H, W, 3) uint8 RGB into the network's input (h, w, 3) uint8, not yet normalised.

    Args:
        image: Image of any size.
        preprocessing: Size, fit and interpolation.
    """
    height, width = image.shape[:2]
    inner = resize(image, *compute_inner_size(height, width, preprocessing), preprocessing.interpolation)
    return pad(inner, preprocessing), Fit.of(height, width, preprocessing)


def pad(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Lay a resized image (h, w, 3) into the network's input, top left."""
    size = _pad_size(image.shape[0], image.shape[1], preprocessing)
    if image.shape[:2] == size:
        return image
    canvas = blank(size, preprocessing.fill_color())
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def compute_padded_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width of the network's input for an image of ``height`` and ``width``."""
    return _pad_size(*compute_inner_size(height, width, preprocessing), preprocessing)


def compute_inner_size(height: float, width: float, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width in network pixels that an image of ``height`` and ``width`` takes up; the rest is padding."""
    inner_height, inner_width = compute_inner_sizes(np.array([[height, width]]), preprocessing)[0].tolist()
    return inner_height, inner_width


def compute_inner_sizes(sizes: NDArray[Any], preprocessing: Preprocessing) -> NDArray[np.int64]:
    """`compute_inner_size` of N images at once: (N, 2) heights and widths -> (N, 2) heights and widths."""
    limits = np.asarray(preprocessing.size, np.float64)
    if preprocessing.fit == "stretch":
        return np.broadcast_to(limits.astype(np.int64), sizes.shape)
    if preprocessing.fit == "letterbox":
        scaled = np.rint(sizes * (limits / sizes).min(axis=1, keepdims=True))
    else:
        scales = (np.sort(limits) / np.sort(sizes, axis=1)).min(axis=1, keepdims=True)
        scaled = np.floor(sizes * scales + (0.0 if preprocessing.round_down else 0.5))
    return np.maximum(scaled, 1).astype(np.int64)


def blank(size: tuple[int, int], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image of ``size`` (height, width) in one RGB colour."""
    canvas = np.empty((*size, 3), np.uint8)
    cv2.rectangle(canvas, (0, 0), (size[1], size[0]), color, cv2.FILLED)  # numpy's broadcast takes ten times as long
    return canvas


def _pad_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    if preprocessing.fit != "keep_ratio":
        return preprocessing.size
    multiple = preprocessing.pad_multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
