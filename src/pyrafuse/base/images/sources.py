"""What people point a detector at, as frames: file, folder, glob, video, camera, URL, array, or a list -> `Frame`s."""

import glob
import math
import os
import re
import tempfile
import urllib.error
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pyrafuse.base.arrays import Array, is_tensor
from pyrafuse.base.downloading import host_of, open_address, read_pieces
from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import list_files
from pyrafuse.base.images.pixels import Channels, Picture, from_array, from_pillow, from_tensor
from pyrafuse.base.images.reading import IMAGE_SUFFIXES, REMEDIES, read_picture
from pyrafuse.base.members import find_member
from pyrafuse.base.paths import check_source, expand_user
from pyrafuse.base.printable import hide_logins, printable

STREAM_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp"})
"""URLs that are read as cameras are, until they are stopped."""

STREAM_SUFFIXES = frozenset({".m3u8", ".mjpg", ".mjpeg", ".sdp"})
"""Endings of http(s) URLs of streams."""

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv".split()  # noqa: SIM905
)
"""Suffixes, in lower case, of the files that are read as videos."""

_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | REMEDIES.keys()  # what a person takes for a picture fails by name

MAX_DOWNLOAD_BYTES = 2**30
"""A download is given up past this size."""

# what OpenCV finds damaged is told by the frame; it would say so once more, in its own words
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

TIMEOUT_S = 10.0
"""A download or a stream is given up when nothing arrives for so long."""


@dataclass(frozen=True)
class Frame:
    """One image of a source, or what was wrong with it.

    Attributes:
        name: A path, a URL, ``image0`` for an array, ``video.mp4#12`` for frame 12 of a video.
        image: (H, W, 3) uint8 RGB; none where it could not be read.
        error: Why it could not be read; none where it could.
        index: Position in the source, from 0.
        fps: Frames a second of the video it is from; none for a still image.
        notes: What was decided in reading it: which white, page or bands were taken.
    """

    name: str
    image: NDArray[np.uint8] | None
    error: str | None = None
    index: int = 0
    fps: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """Frames in order; iterating again begins anew.

    Attributes:
        read: Gives the frames.
        num_frames: How many there will be, where that is known before reading.
        is_stream: Whether it goes on until it is stopped, as a camera does.
        root: The folder that was searched; none for other sources.
        passed_over: How many files of the folder are no images, by suffix.
    """

    read: Callable[[], Iterator[Frame]]
    num_frames: int | None
    is_stream: bool = False
    root: Path | None = None
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self.read()):
            yield replace(frame, index=index)


def open_source(
    source: Any,
    *,
    stride: int = 1,
    channels: Channels = "rgb",
    leave_out: str | os.PathLike[str] | None = None,
) -> Source:
    """Open whatever a detector can be pointed at.

    Args:
        source: A path of an image, a video or a folder (searched to its bottom, in natural order); a glob; a camera's
            number; an http(s) URL of an image or a video; an rtsp(s), rtmp, udp or tcp URL of a stream; an array
            (H, W, 3), (H, W, 4), (H, W, 1) or (H, W); a tensor (3, H, W) or (B, 3, H, W); a PIL image; or a list of
            these. Values of arrays are taken as `from_array` says.
        stride: Step between the frames that are read of a video or a camera.
        channels: Order of the colours of arrays and tensors: ``rgb``, or ``bgr`` for OpenCV's. Files, PIL images and
            cameras have an order of their own.
        leave_out: A folder of results: what lies in it is no source, drawn pictures of a former call for instance.

    Raises:
        DataError: If there is no such file, folder or camera, a folder or glob holds no images, a download fails or an
            array is no image. A single image that cannot be read is no such error: its frame says what is wrong.
    """
    if stride < 1:
        raise DataError(f"stride must be 1 or more, got {stride}")
    if channels not in get_args(Channels):
        raise DataError(f"channels is rgb or bgr, not {channels!r}")
    if isinstance(source, list | tuple):
        return _chain([_open_item(item, rank, stride, channels, leave_out) for rank, item in enumerate(source)])
    if isinstance(source, str) and _is_url(source) and not _is_stream(source):
        return _open_url(source, stride)
    return _open_item(source, 0, stride, channels, leave_out)


def _open_item(
    source: Any, rank: int, stride: int, channels: Channels, leave_out: str | os.PathLike[str] | None
) -> Source:
    if isinstance(source, np.ndarray | Image.Image) or is_tensor(source):
        pictures = _to_pictures(source, channels)
        names = [f"image{rank}" + (f".{row}" if len(pictures) > 1 else "") for row in range(len(pictures))]
        frames = [Frame(n, p.pixels, notes=p.notes) for n, p in zip(names, pictures, strict=True)]
        return Source(lambda: iter(frames), len(frames))
    if isinstance(source, int) and not isinstance(source, bool):
        return _open_camera(source, stride)
    if isinstance(source, bytes) or not isinstance(source, str | os.PathLike):
        raise DataError(
            f"a {type(source).__name__} is no source; give a path, a glob, a URL, a camera's number, an array, "
            "a tensor, a PIL image or a list of these"
        )
    text = os.fspath(source)
    check_source(text)
    if _is_url(text):
        return _open_stream(text, stride) if _is_stream(text) else _open_url_later(text, stride)
    path = expand_user(text)
    if path.is_dir():
        return _open_folder(path, stride, leave_out)
    if path.exists() or find_member(path):
        return _open_file(path, str(path), stride)
    if text.isdecimal():
        return _open_camera(int(text), stride)
    return _open_glob(str(path), stride)


def _chain(sources: Sequence[Source]) -> Source:
    if not sources:
        raise DataError("an empty list is no source")
    counts = [source.num_frames for source in sources]
    return Source(
        lambda: (frame for source in sources for frame in source),
        sum(count for count in counts if count is not None) if None not in counts else None,
        any(source.is_stream for source in sources),
    )


def _open_folder(folder: Path, stride: int, leave_out: str | os.PathLike[str] | None) -> Source:
    paths, others = list_pictures(folder, leave_out)
    return replace(_chain([_open_file(path, str(path), stride) for path in paths]), root=folder, passed_over=others)


def list_pictures(folder: Path, leave_out: str | os.PathLike[str] | None = None) -> tuple[list[Path], dict[str, int]]:
    """Images and videos in ``folder`` and below it, in natural order, and how many other files there are, by suffix.

    Raises:
        DataError: If there are none, or ``leave_out``, the folder of results, is ``folder``.
    """
    files = list_files(folder)  # a link that leads nowhere is among them, a fault to be told
    left_out = 0
    if leave_out is not None:
        results = Path(leave_out).resolve()
        if results == folder.resolve():
            raise DataError(f"results in {folder} would lie among the images they are of; choose another output")
        if folder.resolve() in results.parents and results.is_dir():
            every, files = files, tuple(file for file in files if not file.resolve().is_relative_to(results))
            left_out = len(every) - len(files)
    paths = [path for path in files if path.suffix.lower() in _SUFFIXES]
    others = Counter(path.suffix.lower() for path in files if path.suffix.lower() not in _SUFFIXES)
    if left_out:
        others[f"in {leave_out}, the folder of results"] = left_out
    if not paths:
        found = f"; passed over: {tell_suffixes(others)}" if others else ", nor anything else"
        raise DataError(f"no images or videos in {folder} or below it{found}")
    return sorted(paths, key=natural_order), dict(others)


def tell_suffixes(counts: Mapping[str, int]) -> str:
    """``3 .txt, 1 without suffix``, the most first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {printable(suffix) or 'without suffix'}" for suffix, count in ordered)


def _open_glob(pattern: str, stride: int) -> Source:
    paths = [Path(path) for path in glob.glob(pattern, recursive=True)]
    files = sorted((path for path in paths if path.is_file()), key=natural_order)
    if not files:
        raise DataError(f"no file matches {pattern!r}")
    return _chain([_open_file(path, str(path), stride) for path in files])


def natural_order(path: Path) -> list[tuple[tuple[int, str], ...]]:
    """``img2`` before ``img10``: each run of digits counts as a number."""
    return [
        tuple((int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", part.lower()))
        for part in path.parts
    ]


def _open_file(path: Path, name: str, stride: int) -> Source:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(str(path), name, stride)
    return Source(lambda: iter([read_still(path, name)]), 1)


def read_still(path: Path, name: str, *, data: bytes | None = None) -> Frame:
    """The image in the file ``path``, or in ``data``, as a frame called ``name``."""
    try:
        picture = read_picture(path, data=data)
    except DataError as error:
        return Frame(name, None, str(error).replace(printable(path), printable(name)))
    return Frame(name, picture.pixels, notes=picture.notes)


def _open_video(path: str, name: str, stride: int) -> Source:
    capture = cv2.VideoCapture(path)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return Source(lambda: _read_video(path, name, stride), math.ceil(count / stride) if count > 0 else None)


def _open_camera(number: int, stride: int) -> Source:
    if number < 0:  # OpenCV takes it for any camera, and may bring the process down where there is none
        raise DataError(f"camera {number} is none: cameras are numbered from 0")
    capture = cv2.VideoCapture(number)
    is_open = capture.isOpened()
    capture.release()
    if not is_open:
        raise DataError(f"camera {number} cannot be opened; is one connected, and not in use by another program?")
    return Source(lambda: _read_video(number, f"camera{number}", stride), None, is_stream=True)


def _open_stream(url: str, stride: int) -> Source:
    name = hide_logins(url)
    capture = _capture(url)
    is_open = capture.isOpened()
    capture.release()
    if not is_open:
        raise DataError(f"no stream at {printable(url)}; check the address, the password and the connection")
    return Source(lambda: _read_video(url, name, stride), None, is_stream=True)


def _capture(place: str | int) -> cv2.VideoCapture:
    if isinstance(place, str) and _is_url(place):  # a camera that is switched off would be waited for
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(TIMEOUT_S * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            int(TIMEOUT_S * 1000),
        ]
        return cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(place)


def _read_video(place: str | int, name: str, stride: int) -> Iterator[Frame]:
    capture = _capture(place)
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = (fps if 0 < fps < 1000 else 25.0) / stride  # cameras and damaged files say 0, nan or 90000
        number = 0
        while capture.grab():
            if number % stride == 0:
                is_decoded, pixels = capture.retrieve()
                if is_decoded:
                    yield Frame(f"{name}#{number}", cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8), fps=fps)
                else:
                    yield Frame(f"{name}#{number}", None, f"{name}: frame {number} cannot be decoded", fps=fps)
            number += 1
        if number == 0:
            yield Frame(
                name, None, f"{printable(name)} is no video that can be read, or is damaged; remove or replace it"
            )
    finally:
        capture.release()


def _is_url(text: str) -> bool:
    return "://" in text


def _is_stream(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False  # told of when it is downloaded
    return parts.scheme.lower() in STREAM_SCHEMES or Path(parts.path).suffix.lower() in STREAM_SUFFIXES


def _open_url(url: str, stride: int) -> Source:
    path = _download(url)
    source = _open_file(path, hide_logins(url), stride)
    weakref.finalize(source, path.unlink, missing_ok=True)
    return source


def _open_url_later(url: str, stride: int) -> Source:
    """One of many: downloaded when its turn comes, and no reason to stop when that fails."""

    def read() -> Iterator[Frame]:
        try:
            source = _open_url(url, stride)
        except DataError as error:
            yield Frame(hide_logins(url), None, str(error))
        else:
            yield from source

    is_video = Path(url.partition("?")[0]).suffix.lower() in VIDEO_SUFFIXES
    return Source(read, None if is_video else 1)


def _download(url: str) -> Path:
    """The body of ``url`` as a temporary file, with a suffix that tells images from videos."""
    shown = hide_logins(url)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DataError(f"{printable(shown)} is no address: {error}; correct it") from error
    if parts.scheme not in {"http", "https"}:
        raise DataError(
            f"cannot read {shown}: images and videos come by http:// and https://, streams by "
            f"{', '.join(sorted(STREAM_SCHEMES))}"
        )
    path = None
    try:
        with open_address(url, timeout_s=TIMEOUT_S) as response:
            suffix = Path(parts.path).suffix.lower()
            if response.headers.get_content_maintype() == "video" and suffix not in VIDEO_SUFFIXES:
                suffix = ".mp4"
            expected = int(response.headers.get("Content-Length") or 0)
            handle, name = tempfile.mkstemp(suffix=suffix if suffix in VIDEO_SUFFIXES else "")
            path = Path(name)
            with os.fdopen(handle, "wb") as stream:
                received = 0
                for block in read_pieces(response, host_of(url)):
                    received += len(block)
                    if max(received, expected) > MAX_DOWNLOAD_BYTES:
                        raise DataError(f"{shown} is larger than {MAX_DOWNLOAD_BYTES:,} bytes; download it yourself")
                    stream.write(block)
            if received < expected:
                raise DataError(f"{shown} broke off after {received:,} of {expected:,} bytes; try again")
    except (OSError, HTTPException, ValueError) as error:
        if path is not None:
            path.unlink(missing_ok=True)
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            reason = f"{error.code} {reason}"
            error.close()  # it holds the connection
        raise DataError(f"cannot download {shown}: {reason}; check the address and the connection") from error
    return path


def _to_pictures(source: Array | Image.Image, channels: Channels) -> list[Picture]:
    if isinstance(source, Image.Image):
        return [from_pillow(ImageOps.exif_transpose(source), name=f"a PIL image of mode {source.mode}")]
    if is_tensor(source):
        return from_tensor(source, name="a tensor", channels=channels)
    return [from_array(source, name="an array", channels=channels)]
