"""Images as torch tensors: resized and fitted to the network's input, stacked into a batch."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pyrafuse.base.images import fitting
from pyrafuse.base.images.fitting import Fit, compute_inner_size
from pyrafuse.base.preprocessing import Interpolation, Preprocessing


def fit_image(image: NDArray[np.uint8], preprocessing: Preprocessing) -> tuple[Tensor, Fit]:
    """Turn an image (H, W, 3) uint8 RGB into the network's input (3, h, w) uint8, not yet normalised."""
    fitted, fit = fitting.fit_image(image, preprocessing)
    return to_tensor(fitted), fit


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
    """Resize an image (H, W, 3) by `resize` to what it takes up of the network's input."""
    height, width = image.shape[:2]
    return resize(image, *compute_inner_size(height, width, preprocessing), preprocessing.interpolation)


def resize(image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """Resize a training image (H, W, 3) uint8, with one of Pillow's filters or bilinearly with OpenCV's lack of one.

    Pillow's filters run in torch, three to fifteen times as fast as Pillow and within one grey level of it. What is
    predicted, evaluated and exported takes the pixels of `pyrafuse.base.images.fitting.resize`, the same everywhere.
    """
    if interpolation == "opencv" or image.shape[:2] == (height, width):
        return fitting.resize(image, height, width, interpolation)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]  # channels last: torch resizes uint8 so without a copy
    mode = "bicubic" if interpolation == "bicubic" else "bilinear"
    resized = F.interpolate(pixels, (height, width), mode=mode, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """An image (H, W, 3) as a contiguous tensor (3, H, W)."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
