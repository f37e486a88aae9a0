"""What predictions leave behind: drawn pictures and videos, one JSON, COCO results, YOLO text."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.detections import MAX_SIDE_PX, Detections, no_detections
from pyrafuse.core.storage import write_text

Format = Literal["image", "crop", "json", "coco", "yolo"]
"""``image``: pictures and videos with their boxes; ``crop``: each object cut out, a folder a class; ``json``: all
in one file; ``coco``: COCO results; ``yolo``: one text file an image."""

MAX_VIDEO_SIDE_PX = 8191
"""Of MPEG-4; larger frames are reduced."""


@dataclass(frozen=True)
class Finding:
    """What was found in one frame, and where the frame comes from.

    Attributes:
        detections: In pixels of the frame, with the frame itself.
        index: The frame's rank in its source.
        video: The video that it is from; empty for a still image.
        fps: Frames a second of that video; 0 for a still image.
    """

    detections: Detections
    index: int
    video: str = ""
    fps: float = 0.0


class Places:
    """Gives every frame a file name of its own below a folder, like the frame's own place below ``root``."""

    def __init__(self, folder: Path, root: Path | None) -> None:
        self._folder = folder
        self._root = root
        self._taken: set[Path] = set()

    def choose(self, name: str, suffix: str) -> Path:
        """A path with ``suffix`` for the frame, or video, called ``name``.

        Raises:
            PyrafuseError: If that is in the folder of the frame's own file, where it could replace an input.
        """
        inner = self._inner(name)
        place = self._folder / inner.with_name(inner.name + suffix)
        if Path(name).is_file() and place.parent.resolve() == Path(name).parent.resolve():
            raise PyrafuseError(
                f"results in {place.parent} would lie among the images they are of; choose another output"
            )
        rank = 2
        while place in self._taken:
            place = self._folder / inner.with_name(f"{inner.name}-{rank}{suffix}")
            rank += 1
        self._taken.add(place)
        return place

    def _inner(self, name: str) -> Path:
        """Where the frame stands below the source's folder, without its suffix; ``clip.mp4#12`` becomes ``clip_12``."""
        name, _, number = name.partition("#") if not Path(name).is_file() else (name, "", "")
        path = Path(unquote(urlsplit(name).path)) if "://" in name else Path(name)
        is_below = self._root is not None and path.is_relative_to(self._root)
        inner = path.relative_to(self._root) if is_below and self._root is not None else Path(path.name or "image")
        stem = inner.stem if path.suffix else inner.name
        return inner.with_name(f"{stem}_{number}" if number else stem)


class Writer(ABC):
    """Takes findings one by one; as a context, it completes its files at the end, or drops them upon an error.

    An interrupt is no error: what was found until then is kept.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            self.close()
        else:
            self.discard()

    @abstractmethod
    def write(self, finding: Finding) -> None: ...

    def close(self) -> None:
        """Nothing to end, unless a writer says otherwise."""
        return

    def discard(self) -> None:
        """Drop what was begun; nothing, unless a writer says otherwise."""
        return


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
        self._hidden = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        self._size = size
        self._num_frames = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
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
        # OpenCV drops frames of another size without a word; a stream may change its own midway
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
            self._hidden.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._writer.release()
        self._hidden.unlink(missing_ok=True)


def _fit_video(width: int, height: int) -> tuple[int, int]:
    """The nearest size that MPEG-4 has: a GIF may be of one pixel, or of more than a video can have."""
    scale = min(1, MAX_VIDEO_SIDE_PX / max(width, height))
    return max(2, round(width * scale)), max(2, round(height * scale))


def _count_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


class PictureWriter(Writer):
    """Draws still images as ``images/*.jpg``, as .png where no JPEG is so large, and each video as ``videos/*.mp4``."""

    def __init__(self, output: Path, root: Path | None) -> None:
        self._pictures = Places(output / "images", root)
        self._videos = Places(output / "videos", root)
        self._name = ""
        self._video: Video | None = None

    def write(self, finding: Finding) -> None:
        if finding.video != self._name:
            self.close()
        if not finding.video:
            suffix = ".jpg" if max(finding.detections.image_size) <= MAX_SIDE_PX[".jpg"] else ".png"
            finding.detections.save(self._pictures.choose(finding.detections.source, suffix))
            return
        pixels = finding.detections.draw().permute(1, 2, 0).cpu().numpy()
        if self._video is None:
            place = self._videos.choose(finding.video, ".mp4")
            self._video = Video(place, fps=finding.fps, size=_fit_video(pixels.shape[1], pixels.shape[0]))
            self._name = finding.video
        self._video.write(pixels)

    def close(self) -> None:
        """Complete the video that is being written."""
        video, self._video, self._name = self._video, None, ""
        if video is not None:
            video.close()

    def discard(self) -> None:
        """Drop the video that is being written."""
        if self._video is not None:
            self._video.discard()


class CropWriter(Writer):
    """Cuts each object out as ``crops/CLASS/*.jpg``; what a class is called becomes a safe name of a folder."""

    def __init__(self, output: Path, root: Path | None) -> None:
        self._output = output / "crops"
        self._root = root
        self._places: dict[str, Places] = {}

    def write(self, finding: Finding) -> None:
        found = finding.detections
        for name, label, pixels in zip(found.class_names, found.labels.tolist(), found.crop(), strict=True):
            folder = safe_file_name(name) or f"class {label}"
            if folder not in self._places:
                self._places[folder] = Places(self._output / folder, self._root)
            suffix = ".jpg" if max(pixels.shape) <= MAX_SIDE_PX[".jpg"] else ".png"
            replace(no_detections(), image=pixels).save(self._places[folder].choose(found.source, suffix))


def safe_file_name(name: str) -> str:
    """``name`` as one that any file system takes: no separators, no characters that give orders, at most 80 long."""
    plain = "".join(c if c.isalnum() or c in " -_.,()[]" else "_" for c in name).strip(" .")
    return plain.encode("utf-8", "ignore")[:80].decode("utf-8", "ignore").strip(" .")


class YOLOWriter(Writer):
    """Writes ``labels/*.txt``, one file a frame, empty where nothing was found."""

    def __init__(self, output: Path, root: Path | None) -> None:
        self._places = Places(output / "labels", root)

    def write(self, finding: Finding) -> None:
        write_text(self._places.choose(finding.detections.source, ".txt"), finding.detections.to_yolo())


class JSONWriter(Writer):
    """Writes ``predictions.json``: an object an image, with the names, boxes (xyxy, pixels), scores and levels."""

    def __init__(self, output: Path) -> None:
        self._path = output / "predictions.json"
        self._images: list[dict[str, Any]] = []

    def write(self, finding: Finding) -> None:
        self._images.append(finding.detections.to_dict())

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if self._images:
            write_text(self._path, json.dumps({"images": self._images}, indent=1))


class COCOWriter(Writer):
    """Writes ``coco_results.json``, which COCO's evaluation reads.

    An image's id is the number its file is named by, as in COCO itself, if all are named so; else its rank from 0.
    ``file_name`` stands beside it.
    """

    def __init__(self, output: Path, category_ids: Sequence[int | str]) -> None:
        self._path = output / "coco_results.json"
        self._category_ids = tuple(category_ids)
        self._findings: list[tuple[int, Detections]] = []

    def write(self, finding: Finding) -> None:
        # without its pixels: all results are held until the end
        self._findings.append((finding.index, replace(finding.detections, image=None)))

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if not self._findings:
            return
        stems = [Path(found.source).stem for _, found in self._findings]
        is_numbered = all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
        rows = [
            {
                "image_id": int(stem) if is_numbered else index,
                "file_name": found.source,
                "category_id": self._category_ids[label] if label < len(self._category_ids) else label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for stem, (index, found) in zip(stems, self._findings, strict=True)
            for label, score, (x1, y1, x2, y2) in zip(
                found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        write_text(self._path, json.dumps(rows, indent=1))


def create_writers(
    formats: Sequence[Format], output: Path, *, root: Path | None, category_ids: Sequence[int | str]
) -> list[Writer]:
    """The writers of ``formats``, each once.

    Args:
        formats: What to write.
        output: The folder that everything goes into.
        root: The source's own folder, whose inner order is kept.
        category_ids: The data's own id of each class; empty for labels from 1.

    Raises:
        PyrafuseError: If a format is unknown.
    """
    builders: Mapping[str, Callable[[], Writer]] = {
        "image": lambda: PictureWriter(output, root),
        "crop": lambda: CropWriter(output, root),
        "json": lambda: JSONWriter(output),
        "coco": lambda: COCOWriter(output, category_ids),
        "yolo": lambda: YOLOWriter(output, root),
    }
    if strangers := sorted(set(formats) - set(builders)):
        raise PyrafuseError(f"unknown format {', '.join(strangers)}; choose from {', '.join(builders)}")
    return [builders[name]() for name in dict.fromkeys(formats)]
