"""One conversion for every door: file, Pillow image, array or tensor -> white decided -> (H, W, 3) uint8 RGB."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from pyrafuse.base.arrays import Array, to_numpy
from pyrafuse.base.errors import DataError

BITS = (8, 10, 12, 14, 16)
"""What cameras and scanners deliver; of whole numbers the fewest that hold the brightest one are taken."""

STRIP_PIXELS = 1 << 22
"""Pixels that are laid over white at once."""

Channels = Literal["rgb", "bgr"]
"""Order of the colours of an array: ours, or OpenCV's."""


@dataclass(frozen=True)
class Picture:
    """An image, and what was decided in reading it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        notes: Sentences without the image's name: which white, page or bands were taken. Empty for plain images.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def from_array(values: NDArray[Any], *, name: str, channels: Channels = "rgb") -> Picture:
    """Convert (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) values; the fourth channel is opacity, over white.

    Whole numbers of 0 to 65535 keep their highest eight bits of 8, 10, 12, 14 or 16: the fewest that hold the brightest
    value. Floats are 0..1, or whole numbers as well. Of booleans true is white.

    Args:
        values: Array of pixels.
        name: What an error calls them.
        channels: Order of the colours.

    Raises:
        DataError: If the shape is another one, or the values have no defined white.
    """
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[-1] not in {1, 3, 4}:
        raise DataError(
            f"{name} of shape {values.shape} is no image; give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), colours last"
        )
    if values.size == 0:
        raise DataError(f"{name} of shape {values.shape} has no pixels")
    pixels, note = to_bytes(values, name=name)
    if channels == "bgr" and pixels.shape[-1] > 1:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif pixels.shape[-1] == 4:
        pixels = np.array(_over_white(Image.fromarray(np.ascontiguousarray(pixels))))
    return Picture(np.ascontiguousarray(pixels), (note,) if note else ())


def from_tensor(values: Array, *, name: str, channels: Channels = "rgb") -> list[Picture]:
    """Convert a torch tensor (C, H, W), or each of a batch (B, C, H, W), of 1, 3 or 4 channels, as `from_array` does.

    Raises:
        DataError: On the same faults as `from_array`.
    """
    is_last = values.ndim in {3, 4} and values.shape[-1] == 3 != values.shape[-3]  # colours last, as in arrays
    if values.ndim not in {3, 4} or values.shape[-3] not in {1, 3, 4} or is_last:
        raise DataError(
            f"{name} of shape {tuple(values.shape)} is no image; give (3, H, W) or (B, 3, H, W), or 1 or 4 channels"
        )
    if values.numel() == 0:
        raise DataError(f"{name} of shape {tuple(values.shape)} has no pixels")
    values = values.movedim(-3, -1)
    pixels = to_numpy(values.float() if values.is_floating_point() else values)  # numpy knows no bfloat16
    rows = pixels if pixels.ndim == 4 else pixels[None]
    return [from_array(row, name=name, channels=channels) for row in rows]


def from_pillow(image: Image.Image, *, name: str) -> Picture:
    """Convert an upright Pillow image of any mode; transparent pixels show white.

    Raises:
        DataError: If its values have no defined white.
    """
    if image.width == 0 or image.height == 0:
        raise DataError(f"{name} of {image.width} x {image.height} pixels has no pixels")
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        picture = from_array(values, name=name)
        is_negative = isinstance(image, TiffImagePlugin.TiffImageFile) and _tag(image, 262) == 0
        return Picture(255 - picture.pixels, picture.notes) if is_negative else picture
    num_bands = _tag(image, 277) if isinstance(image, TiffImagePlugin.TiffImageFile) else 3
    if has_unnamed_band(image) or (image.mode == "RGB" and num_bands is not None and num_bands > 3):
        # its fourth band is near infrared, say: only a band that the file calls opacity is one
        return Picture(np.array(image.convert("RGB")), (tell_bands(num_bands),))
    if image.has_transparency_data:
        return Picture(_without_transparency(image))
    # a copy: what Pillow lends is read-only, and torch.from_numpy warns at that
    return Picture(np.array(image if image.mode == "RGB" else image.convert("RGB")))


def _without_transparency(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) over white, strip by strip: a palette of one byte a pixel must not take ten of them at once."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        strip = image.crop((0, top, image.width, min(top + step, image.height)))
        pixels[top : top + step] = np.asarray(_over_white(strip.convert("RGBA")))
    return pixels


def has_unnamed_band(image: Image.Image) -> bool:
    """Whether Pillow takes a TIFF's fourth band for opacity although the file does not call it so."""
    return image.mode == "RGBA" and isinstance(image, TiffImagePlugin.TiffImageFile) and _tag(image, 338) is None


def tell_bands(count: int) -> str:
    """Say what becomes of ``count`` bands without a meaning."""
    return f"{count} bands: the first three are taken as red, green and blue"


def to_bytes(values: NDArray[Any], *, name: str) -> tuple[NDArray[np.uint8], str]:
    """Reduce values of any kind to (..., C) uint8, and say which white was taken where that was not plain.

    Raises:
        DataError: If they have no defined white.
    """
    if values.dtype == np.uint8:
        return np.array(values, order="C"), ""  # a copy: the caller may write into its own, or own a read-only one
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), ""
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1:
            return np.round(values * 255).astype(np.uint8), "floating-point values: white is taken as 1"
        if not (low >= 0 and high <= 65535 and bool((values == np.floor(values)).all())):
            raise DataError(
                f"{name} holds floating-point pixels from {low:g} to {high:g}: their white is unknown; give floats in "
                "0..1 (not normalised ones), or whole numbers of 8 or 16 bits"
            )
    elif not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{name} holds values of type {values.dtype}, which are no pixels; give uint8, or floats in 0..1"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(
            f"{name} holds pixels from {low} to {high}: only 0 to 65535 has a defined white; give 8 or 16 bits"
        )
    bits = next(bits for bits in BITS if high < 2**bits)
    note = f"values up to {high} in {8 * values.dtype.itemsize} bits: white is taken as {2**bits - 1} ({bits} bits)"
    is_plain = high == 0 or bits == 16 or values.dtype.itemsize > 2
    return (values.astype(np.uint16) >> (bits - 8)).astype(np.uint8), "" if is_plain else note


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _tag(image: TiffImagePlugin.TiffImageFile, number: int) -> Any:
    return image.tag_v2.get(number)
