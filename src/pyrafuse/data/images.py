"""Image files as upright RGB pixels: file -> Pillow -> (H, W, 3) uint8."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pyrafuse.core.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes, in lower case, of the files that folders are searched for."""

MAX_PIXELS = 178_956_970
"""Larger images are refused before decoding: Pillow's own limit of what is taken for a decompression bomb."""

_HEADERS_A_TASK = 64  # handing a task to a thread takes as long as reading a header

_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
}  # a file's first bytes -> its reader; what its name says is often wrong

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what turns the stored picture upright; 1 and anything unknown is upright already


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        width: In pixels, as stored.
        height: Likewise.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width in pixels of the image as it is looked at."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read JPEG, PNG, WebP, BMP or TIFF as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Transparent pixels show white. Sixteen bits are scaled to eight: 65535 becomes 255. Of several frames the first
    is read.

    Raises:
        DataError: If the file is missing, is no image, is cut off, has more than `MAX_PIXELS` pixels, or holds
            floating-point or 32-bit values, which have no defined white.
    """
    path = Path(path)
    with _opened(path) as image:
        orientation = _orientation(image)
        image.load()
        upright = image if orientation == 1 else image.transpose(_UPRIGHT[orientation])
        if image.mode.startswith(("I", "F")):
            return _eight_bits(upright, path)
        if image.has_transparency_data:
            upright = upright.convert("RGBA")
            white = Image.new("RGBA", upright.size, "white")
            upright = Image.alpha_composite(white, upright)
        # a copy: what Pillow lends is read-only, and torch.from_numpy warns at that
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the stored size and the orientation without decoding a pixel.

    Raises:
        DataError: As `read_image`, but a file that is cut off behind its header goes unnoticed.
    """
    with _opened(Path(path)) as image:
        return ImageHeader(image.width, image.height, _orientation(image))


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read height and width, in pixels, of the upright image; the header alone is read.

    Raises:
        DataError: As `read_header`.
    """
    return read_header(path).upright_size


def read_headers(paths: Sequence[Path]) -> list[ImageHeader | DataError]:
    """Read many headers side by side; a file that cannot be read gives its error instead."""

    def read(path: Path) -> ImageHeader | DataError:
        try:
            return read_header(path)
        except DataError as error:
            return error

    def read_some(start: int) -> list[ImageHeader | DataError]:
        return [read(path) for path in paths[start : start + _HEADERS_A_TASK]]

    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:  # the disk is waited for, not the processor
        return list(chain.from_iterable(pool.map(read_some, range(0, len(paths), _HEADERS_A_TASK))))


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open ``path`` and give every failure until the block's end its name."""
    try:
        with path.open("rb") as stream:
            image = _identify(stream, path)
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} that are read; "
                    "make it smaller or cut it into tiles"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{path} is a link to {os.readlink(path)}, which is not there; mend or remove it"
            ) from error
        raise DataError(f"no such image: {path}") from error
    except Exception as error:  # every decoder has its own: OSError, SyntaxError, struct.error, EOFError, ValueError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path} is damaged or cannot be read: {reason}; remove or replace it") from error


def _identify(stream: IO[bytes], path: Path) -> ImageFile.ImageFile:
    # not Image.open: at large images that warns or raises, as the process at large is set
    signature = stream.read(4)
    if not signature:
        raise DataError(f"{path} is empty; remove or replace it")
    for known, reader in _READERS.items():
        if signature.startswith(known):
            stream.seek(0)
            return reader(stream, os.fspath(path))
    raise DataError(f"{path} is no image that can be read (JPEG, PNG, WebP, BMP, TIFF); remove or replace it")


def _orientation(image: ImageFile.ImageFile) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow itself turns these
        return 1
    try:
        # of the base class: PNG's own method decodes the whole picture to look for EXIF behind it
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to lose the picture
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _eight_bits(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    values = np.asarray(image)
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{path} holds {image.mode} pixels from {values.min()} to {values.max()}; "
            "only 0 to 65535 has a defined white: save it with 8 or 16 bits"
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
