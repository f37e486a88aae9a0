"""Image files as upright RGB pixels: file -> Pillow, or OpenCV where Pillow cannot -> (H, W, 3) uint8."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Any

import cv2
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

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import check_file
from pyrafuse.base.images.pixels import Picture, from_array, from_pillow, has_unnamed_band, tell_bands
from pyrafuse.base.members import find_member, read_bytes
from pyrafuse.base.printable import printable

with suppress(ImportError):
    import_module("pillow_heif").register_heif_opener()  # phones' .heic, for those who have installed it

_NO_STILLS = frozenset(
    {"BUFR", "EPS", "FLI", "GRIB", "HDF5", "IMT", "IPTC", "MCIDAS", "MPEG", "SPIDER", "WMF", "XVTHUMB"}
)  # Pillow's formats that start another program, hold no pixels that it reads, or are told by no signature

Image.init()
IMAGE_SUFFIXES = frozenset(
    {
        *(suffix for suffix, kind in Image.registered_extensions().items() if kind in {*Image.OPEN} - _NO_STILLS),
        ".mpo",  # a JPEG with more pictures behind it
    }
)
"""Suffixes, in lower case, of the files that are read: all that Pillow has a reader for, plugins included."""

REMEDIES = {
    **dict.fromkeys((".heic", ".heif"), "pip install pillow-heif"),
    ".jxl": "save it as JPEG or PNG",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"), "develop it to JPEG or PNG"),
    **dict.fromkeys((".svg", ".pdf", ".eps", ".wmf", ".emf"), "save it as PNG"),
    **dict.fromkeys((".dcm", ".npy", ".npz", ".mat", ".exr", ".hdr"), "save it as PNG or TIFF of 8 or 16 bits"),
}
"""Suffix, in lower case, of pictures that cannot be read as they are -> what to do."""
REMEDIES = {suffix: remedy for suffix, remedy in REMEDIES.items() if suffix not in IMAGE_SUFFIXES}

MAX_PIXELS = 178_956_970
"""Larger images are refused before decoding: Pillow's own limit of what is taken for a decompression bomb."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

_NO_PICTURES = {
    b"version https://": "a pointer of Git LFS: run `git lfs pull`",
    **dict.fromkeys((b"<!doctype html", b"<html"), "a web page: download the image anew"),
}
"""First bytes, in lower case, of what often stands in an image's place -> what it is and what to do."""


class NoImageError(DataError):
    """A file that holds something else than an image."""


class TooManyPixelsError(DataError):
    """An image that is refused for its size before a pixel is decoded."""


_HEADERS_A_TASK = 64  # handing a task to a thread takes as long as reading a header


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF whose kind of pixels Pillow may not know: then its header is read all the same, and OpenCV decodes it."""

    is_foreign = False

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError:
            self.is_foreign = True
            self._mode, self.tile = "RGB", []


_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG": PngImagePlugin.PngImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _Tiff),
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
        height: Height in pixels.
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
    """Read an image file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation; see `read_picture`.

    Raises:
        DataError: On the same faults as `read_picture`.
    """
    return read_picture(path).pixels


def read_picture(path: str | os.PathLike[str], *, data: bytes | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file of any of `IMAGE_SUFFIXES` as upright RGB, and say what was decided in doing so.

    Transparent pixels show white. Of more than eight bits the highest eight are kept, see `from_array`. Of several
    pages or frames the first is read; of four bands and more without a meaning the first three.

    Args:
        path: Path of the file.
        data: Content of the file, where it lies in memory; then ``path`` is its name in messages, and no file is read.
        max_pixels: Largest number of pixels that is decoded.

    Raises:
        NoImageError: If it holds something else.
        TooManyPixelsError: If it has more than ``max_pixels`` pixels.
        DataError: If the file is missing, empty, damaged or cut off, or holds values that have no defined white.
    """
    path = Path(path)
    name = printable(path)
    data = _content(path) if data is None else data
    with _opened(path, data, max_pixels) as image:
        notes = _tell_pages(image)
        if isinstance(image, _Tiff) and image.is_foreign:
            picture = _decode(path, image, data)
        else:
            is_deep = any(";16" in str(tile) for tile in image.tile)
            orientation = _orientation(image)
            image.load()
            picture = from_pillow(image, name=name)
            if is_deep and image.mode in {"RGB", "RGBA", "LA"} and _brightest(image) < 64:
                # Pillow keeps the high byte of 16 bits: of 10, 12 or 14 bits that is next to nothing
                picture = _decode(path, image, data)
                orientation = 1 if isinstance(image, TiffImagePlugin.TiffImageFile) else orientation
            if orientation != 1:
                upright = Image.fromarray(picture.pixels).transpose(_UPRIGHT[orientation])
                picture = Picture(np.array(upright), picture.notes)
        return Picture(picture.pixels, (*notes, *picture.notes))


def read_header(path: str | os.PathLike[str], *, data: bytes | None = None) -> ImageHeader:
    """Read the stored size and the orientation without decoding a pixel.

    Args:
        path: Path of the file.
        data: Content of the file, as in `read_picture`.

    Raises:
        DataError: On the same faults as `read_image`, but a file that is cut off behind its header goes unnoticed.
    """
    path = Path(path)
    with _opened(path, _content(path) if data is None else data) as image:
        return ImageHeader(image.width, image.height, _orientation(image))


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read height and width, in pixels, of the upright image; the header alone is read.

    Raises:
        DataError: On the same faults as `read_header`.
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


def _content(path: Path) -> bytes | None:
    """Content of an image in a shard; None for one that is a file of its own."""
    return None if find_member(path) is None else read_bytes(path)


@contextmanager
def _opened(path: Path, data: bytes | None = None, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    """Open ``path``, or ``data`` of that name, and give every failure until the block's end its name."""
    try:
        if data is None:
            check_file(path)
        with path.open("rb") if data is None else BytesIO(data) as stream:
            # of content without a file Pillow learns no name: it would map the file of that name into memory
            image = _identify(stream, path, "" if data is not None else os.fspath(path))
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    f"{printable(path)} has {image.width} x {image.height} pixels, more than the {max_pixels:,} "
                    "that are read; make it smaller or cut it into tiles"
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{printable(path)} is a link to {printable(os.readlink(path))}, which is not there; mend or remove it"
            ) from error
        raise DataError(f"no such image: {printable(path)}") from error
    except Exception as error:  # every decoder has its own: OSError, SyntaxError, struct.error, EOFError, ValueError
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{printable(path)} is damaged or cannot be read: {reason}; remove or replace it") from error


def _identify(stream: IO[bytes], path: Path, file: str) -> ImageFile.ImageFile:
    # not Image.open: at large images that warns or raises, as the process at large is set
    signature = stream.read(16)
    if not signature:
        raise DataError(f"{printable(path)} is empty; remove or replace it")
    for known, reader in _READERS.items():
        if signature.startswith(known):
            stream.seek(0)
            return reader(stream, file)
    suffix = path.suffix.lower()
    by_suffix = Image.registered_extensions().get(suffix)
    failure: Exception | None = None
    for kind in sorted(Image.OPEN.keys() - _NO_STILLS, key=lambda kind: kind != by_suffix):
        reader, accepts = Image.OPEN[kind]
        if kind == by_suffix if accepts is None else accepts(signature) is True:
            stream.seek(0)
            try:
                return reader(stream, file)  # type: ignore[return-value]
            except Exception as error:  # some signatures are two bytes: another reader may know better
                failure = failure or error
    if failure is not None:
        raise failure
    if known := next((what for start, what in _NO_PICTURES.items() if signature.lower().startswith(start)), ""):
        raise NoImageError(f"{printable(path)} is no image but {known}")
    if signature[4:8] == b"ftyp" and signature[8:12] in _HEIF_BRANDS:
        suffix = ".heic"  # phones' pictures are often renamed to .jpg
    if remedy := REMEDIES.get(suffix):
        raise NoImageError(f"{printable(path)} is a {suffix[1:].upper()} file, which cannot be read as it is: {remedy}")
    raise NoImageError(
        f"{printable(path)} is no image that can be read (JPEG, PNG, WebP, BMP, TIFF ...); remove or replace it"
    )


def _tell_pages(image: ImageFile.ImageFile) -> tuple[str, ...]:
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # what is behind the first page is damaged, and not read
        count = 1
    return (f"{count} pages or frames: the first is read",) if count > 1 else ()


def _brightest(image: Image.Image) -> int:
    extrema: Any = image.getextrema()
    return max(high for _, high in extrema)


def _decode(path: Path, image: ImageFile.ImageFile, data: bytes | None) -> Picture:
    """Decode with OpenCV, which keeps all bits.

    Raises:
        DataError: If it cannot either.
    """
    try:
        values: Any = cv2.imdecode(
            np.fromfile(path, np.uint8) if data is None else np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error:
        values = None
    if values is None or values.ndim not in {2, 3}:
        kind = ""
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            bits = image.tag_v2.get(258, (1,))
            count = image.tag_v2.get(277, len(bits))
            form = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers"}
            sample = image.tag_v2.get(339, (1,))[0]
            kind = (
                f", {count} {'band' if count == 1 else 'bands'} of {bits[0]}-bit {form.get(sample, 'complex numbers')}"
            )
        raise DataError(
            f"{printable(path)} holds pixels of a kind that is not read{kind}; save it as RGB of 8 or 16 bits"
        )
    notes: tuple[str, ...] = ()
    has_opacity = image.has_transparency_data and not has_unnamed_band(image)
    if values.ndim == 3 and values.shape[-1] > 3 and not has_opacity:
        notes = (tell_bands(values.shape[-1]),)
        values = values[..., :3]
    picture = from_array(values, name=printable(path), channels="bgr")
    return Picture(picture.pixels, (*notes, *picture.notes))


def _orientation(image: ImageFile.ImageFile) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow itself turns these
        return 1
    try:
        # of the base class: PNG's own method decodes the whole picture to look for EXIF behind it
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to lose the picture
        return 1
    return orientation if orientation in _UPRIGHT else 1
