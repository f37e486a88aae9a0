"""Images as arrays (3, H, W): to Pillow and back, and into files."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pyrafuse.base.arrays import Array, to_numpy
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.writing import write_atomically

MAX_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
"""Of pictures that can be written so; a PNG may be of any size."""


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


def save_picture(image: Array, path: Path) -> None:
    """Write an image (3, H, W) uint8 as .jpg, .png or .webp.

    Raises:
        PyrafuseError: If the picture is larger than such a file can be, or the file cannot be written.
    """
    picture, suffix = to_pillow(image), path.suffix.lower()
    if max(picture.size) > MAX_SIDE_PX.get(suffix, math.inf):
        raise PyrafuseError(
            f"cannot write {path}: {picture.width} x {picture.height} pixels, and {suffix} ends at "
            f"{MAX_SIDE_PX[suffix]}; save it as .png"
        )
    encoded = BytesIO()  # into a file Pillow writes past Python, and overlooks that the disk is full
    picture.save(encoded, format={"jpg": "jpeg"}.get(suffix[1:], suffix[1:]), quality=92)
    with write_atomically(path) as stream:
        stream.write(encoded.getvalue())
