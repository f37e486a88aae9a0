"""A video that appears whole or not at all."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import part_suffix

MAX_VIDEO_SIDE_PX = 8191
"""Of MPEG-4; larger frames are reduced."""


class Video:
    """A video that is written under a hidden name beside its own, and takes that once it is complete.

    Args:
        path: An .mp4 file; a former one stays until then.
        fps: Frames a second.
        size: Width and height in pixels; frames of another size are resized.

    Raises:
        PyrafuseError: If no video can be written there.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self._path = path
        # OpenCV chooses the container by the suffix, so that this cannot be the file's own
        self._folder = path.with_name(f".{path.stem[:40]}{part_suffix()}")
        self._hidden = self._folder / path.name
        self._size = size
        self._num_frames = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PyrafuseError(f"cannot write {path}: {error.strerror}; choose another place") from error
        self._writer = cv2.VideoWriter(str(self._hidden), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._writer.isOpened():
            self.discard()
            raise PyrafuseError(
                f"cannot write {path}: OpenCV opens no MPEG-4 video there; free space or choose another place"
            )

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add ``frame`` (H, W, 3) RGB."""
        pixels = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        # OpenCV silently drops frames of another size; a stream may change its own midway
        is_fitting = (pixels.shape[1], pixels.shape[0]) == self._size
        self._writer.write(pixels if is_fitting else cv2.resize(pixels, self._size))
        self._num_frames += 1

    def close(self) -> None:
        """Complete the file.

        Raises:
            PyrafuseError: If not all frames came there, as on a full disk: OpenCV says nothing then.
        """
        self._writer.release()
        try:
            if (num_kept := _count_frames(self._hidden)) < self._num_frames:
                raise PyrafuseError(
                    f"cannot write {self._path}: {num_kept} of {self._num_frames} frames can be read again; free space "
                    "or choose another place"
                )
            os.replace(self._hidden, self._path)
        except OSError as error:
            raise PyrafuseError(f"cannot write {self._path}: {error.strerror}; choose another place") from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._writer.release()
        shutil.rmtree(self._folder, ignore_errors=True)


def fit_video(width: int, height: int) -> tuple[int, int]:
    """The nearest size that MPEG-4 has: a GIF may be of one pixel, or of more than a video can have."""
    scale = min(1, MAX_VIDEO_SIDE_PX / max(width, height))
    return max(2, round(width * scale)), max(2, round(height * scale))


def _count_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
