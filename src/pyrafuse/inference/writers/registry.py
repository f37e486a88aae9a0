"""All output formats of `pyrafuse predict` by name: findings, one by one -> `Writer` -> files below one folder."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import unquote, urlsplit

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.own_files import OwnFiles
from pyrafuse.base.registry import Registry

RECORD_FILE = ".pyrafuse-predicted"
"""In a folder of results, the list of the files that predictions wrote."""


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


@dataclass(frozen=True)
class Destination:
    """Where results go.

    Attributes:
        folder: The folder that everything goes into.
        root: The source's own folder, whose inner order is kept; None where there is none.
        category_ids: The data's own id of each class; empty for labels from 1.
        ids_by_name: Whether an image that is named by a number has it as its id, where a format has ids.
    """

    folder: Path
    root: Path | None = None
    category_ids: tuple[int | str, ...] = ()
    ids_by_name: bool = True

    @cached_property
    def record(self) -> OwnFiles:
        """Which files below the folder are those of predictions."""
        return OwnFiles(self.folder, record=RECORD_FILE, kind="prediction")

    def places(self, name: str) -> "Places":
        """File names for the frames below the folder ``name``.

        Raises:
            PyrafuseError: If it holds a file that no earlier prediction wrote.
        """
        self.record.check(name)
        return Places(self.folder / name, self.root, self.record)

    def file(self, name: str) -> Path:
        """The path of the one file ``name``; `claim` it before it is written.

        Raises:
            PyrafuseError: If a file lies there that no earlier prediction wrote.
        """
        self.record.check(name)
        return self.folder / name

    def claim(self, path: Path) -> Path:
        """``path``, noted as a file of this prediction.

        Raises:
            PyrafuseError: If another file came there meanwhile.
        """
        return self.record.claim(path)


class Places:
    """Gives every frame a file name of its own below a folder, like the frame's own place below ``root``."""

    def __init__(self, folder: Path, root: Path | None, record: OwnFiles) -> None:
        self._folder = folder
        self._root = root
        self._record = record

    def choose(self, name: str, suffix: str) -> Path:
        """A path with ``suffix`` for the frame, or video, called ``name``; written before the next one is chosen.

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
        while not self._record.take(place):
            place = self._folder / inner.with_name(f"{inner.name}-{rank}{suffix}")
            rank += 1
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

    Args:
        destination: Where to, and what is known before the first finding.

    Attributes:
        needs_pixels: Whether the findings must hold the frames themselves.
    """

    needs_pixels: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, destination: Destination) -> None: ...

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


WRITERS: Registry[Writer] = Registry("output format", "pyrafuse.inference.writers")


def create_writers(formats: Sequence[str], destination: Destination) -> list[Writer]:
    """The writers of ``formats``, each once.

    Raises:
        UnknownNameError: If there is no such format; the message lists all.
    """
    return [WRITERS.create(name, destination) for name in dict.fromkeys(formats)]
