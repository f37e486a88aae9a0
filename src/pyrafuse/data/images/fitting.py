"""An image and its boxes, to the network's input and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pyrafuse.base.boxes import clip_boxes
from pyrafuse.core.preprocessing import Interpolation, Preprocessing

Boxes = TypeVar("Boxes", Tensor, NDArray[np.float32])


@dataclass(frozen=True)
class Fit:
    """How an image was laid into the network's input: at its top left corner, scaled.

    Attributes:
        scale_x: Network pixels an image pixel, along the width.
        scale_y: Likewise along the height.
        height: Of the image itself, in pixels.
        width: Likewise.
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

    def to_network(self, boxes: Boxes) -> Boxes:
        """Boxes (G, 4) xyxy in pixels of the image, in pixels of the network's input."""
        return _scale(boxes, self.scale_x, self.scale_y)

    def to_image(self, boxes: Boxes, *, clip: bool = False) -> Boxes:
        """Boxes (N, 4) xyxy in pixels of the network's input, in pixels of the image; cut at its edges if ``clip``."""
        boxes = _scale(boxes, 1 / self.scale_x, 1 / self.scale_y)
        return clip_boxes(boxes, (self.height, self.width)) if clip else boxes


def fit_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> tuple[Tensor, Fit]:
    """Turn an image (H, W, 3) uint8 RGB into the network's input (3, h, w) uint8, not yet normalised."""
    height, width = image.shape[:2]
    fitted = pad(resize_to_fit(image, preprocessing), preprocessing)
    return to_tensor(fitted), Fit.of(height, width, preprocessing)


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """Put fitted images (3, h, w) into one batch (B, 3, H, W), smaller ones at the top left over black."""
    height, width = (max(image.shape[side] for image in images) for side in (1, 2))
    if all(image.shape[1:] == (height, width) for image in images):
        return torch.stack(list(images))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def resize_to_fit(image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) to what it takes up of the network's input."""
    height, width = image.shape[:2]
    inner_height, inner_width = compute_inner_size(height, width, preprocessing)
    return resize(image, inner_height, inner_width, preprocessing.interpolation)


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


def resize(image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) uint8, with one of Pillow's filters or bilinearly with OpenCV's lack of one.

    Pillow's filters run in torch, three to fifteen times as fast as Pillow and within one grey level of it.
    """
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "opencv":
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # channels last: torch resizes uint8 so without a copy
    mode = "bicubic" if interpolation == "bicubic" else "bilinear"
    resized = F.interpolate(pixels, (height, width), mode=mode, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def blank(size: tuple[int, int], color: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An image of ``size`` (height, width) in one RGB colour."""
    canvas = np.empty((*size, 3), np.uint8)
    cv2.rectangle(canvas, (0, 0), (size[1], size[0]), color, cv2.FILLED)  # numpy's broadcast takes ten times as long
    return canvas


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """An image (H, W, 3) as a contiguous tensor (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def _pad_size(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    if preprocessing.fit != "keep_ratio":
        return preprocessing.size
    multiple = preprocessing.pad_multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def _scale(boxes: Boxes, scale_x: float, scale_y: float) -> Boxes:
    scales = (scale_x, scale_y, scale_x, scale_y)
    if isinstance(boxes, Tensor):
        return boxes * boxes.new_tensor(scales)
    return boxes * np.asarray(scales, np.float32)
