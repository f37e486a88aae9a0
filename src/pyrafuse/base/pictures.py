"""Images as arrays (3, H, W), to Pillow and back."""

import numpy as np
from PIL import Image

from pyrafuse.base.arrays import Array, to_numpy
from pyrafuse.base.errors import PyrafuseError


def to_pillow(image: Array) -> Image.Image:
    """Copy ``image`` (3, H, W) uint8 into a Pillow image.

    Raises:
        PyrafuseError: If it is of another shape or type.
    """
    pixels = to_numpy(image)
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8:
        raise PyrafuseError(
            f"an image of shape {pixels.shape} and type {pixels.dtype} cannot be drawn: give (3, H, W) uint8"
        )
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, -1)))


def like_image(image: Array, picture: Image.Image) -> Array:
    """``picture`` as (3, H, W) uint8 of the kind of ``image``, in main memory."""
    pixels = np.ascontiguousarray(np.moveaxis(np.array(picture), -1, 0))
    return pixels if isinstance(image, np.ndarray) else image.cpu().new_tensor(pixels)
