"""A data set written in another format: readings -> what is lost -> places and texts -> a folder, checked, then named.

Nothing is written before everything is known to fit, and what is written has a temporary name until it was read again.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pyrafuse.base.errors import DataError, PyrafuseError, unknown_name
from pyrafuse.base.locking import hold_beside
from pyrafuse.base.members import find_member, read_bytes, size_of
from pyrafuse.base.paths import check_writable
from pyrafuse.base.printable import counted, list_names
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.formats.registry import FORMATS, all_formats
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.data.writing.layouts import FRACTIONS, PlacedSplit, Writing
from pyrafuse.data.writing.losses import find_losses, tell_numbers
from pyrafuse.data.writing.placing import place_images

Progress = Callable[[int, int], None]
"""Called with the images done and the number of all."""

_HALF_PX = 0.5 + 1e-3
_SAME_PX = 1e-3


@dataclass(frozen=True)
class Plan:
    """What is to be written, complete, and nothing of it written yet.

    Attributes:
        format: Registered name of the format.
        splits: The splits with a place for each image.
        texts: The text of each file of annotations, by its place.
        losses: What is lost of the objects, a sentence each.
        notes: What else becomes different.
        images: ``copy``, ``link`` or ``reference``.
    """

    format: str
    splits: tuple[PlacedSplit, ...]
    texts: Mapping[str, str]
    losses: tuple[str, ...]
    notes: tuple[str, ...]
    images: str

    def describe(self) -> str:
        """What is written, in one sentence."""
        parts = [
            f"{split.data.split or 'one split'} {counted(len(split.data), 'image')} with "
            f"{counted(sum(len(record.labels) for record in split.data.records), 'object')}"
            for split in self.splits
        ]
        names = self.splits[0].data.names
        return (
            f"{FORMATS.create(self.format).title}: {'; '.join(parts)}; "
            f"{counted(len(names), 'class', 'classes')}: {list_names(names)}"
        )


def writable_formats() -> list[str]:
    """The names of the formats that can be written."""
    return [name for name, each in all_formats() if each.writing is not None]


def find_writing(name: str) -> Writing:
    """How the format ``name`` is written.

    Raises:
        PyrafuseError: If there is no such format, or it is only read.
    """
    if name not in FORMATS.names():
        raise unknown_name("format to write", name, writable_formats())
    writing = FORMATS.create(name).writing
    if writing is None:
        raise PyrafuseError(f"{name} is read and not written; choose from {', '.join(writable_formats())}")
    return writing


def check_destination(destination: Path, *sources: Path) -> None:
    """Refuse a folder that holds something, lies inside a source, or cannot be written.

    Raises:
        PyrafuseError: With what to choose instead.
    """
    check_writable(destination, is_folder=True)
    if os.path.isdir(destination) and any(destination.iterdir()):  # Path.is_dir raises for a name that is too long
        raise PyrafuseError(f"{destination} holds something already; name a new folder, or empty it first")
    real = os.path.realpath(destination)
    for source in sources:
        if source.is_dir() and Path(real).is_relative_to(os.path.realpath(source)):
            raise PyrafuseError(
                f"{destination} lies inside {source}, whose files would be read twice from then on; name a folder "
                "beside it"
            )


def plan(
    readings: Sequence[Reading],
    name: str,
    *,
    images: Literal["copy", "link", "reference"] = "copy",
    allow_loss: bool = False,
) -> Plan:
    """Work out everything that is to be written.

    Args:
        readings: The splits, under one list of classes; see `read_all`.
        name: The format.
        images: ``copy`` them, ``link`` them (hard links, which take no room), or leave them and name them by their
            path (``reference``).
        allow_loss: Whether something of the objects may be lost.

    Raises:
        PyrafuseError: If the format is not written, or cannot refer to images elsewhere.
        DataError: If something would be lost and ``allow_loss`` is not set.
    """
    writing = find_writing(name)
    if images == "reference" and not writing.refers:
        able = [other for other in writable_formats() if find_writing(other).refers]
        raise PyrafuseError(
            f"{name} finds images by the folders they lie in, so it cannot refer to them elsewhere: use --images link, "
            f"which takes no room, or --to {' or '.join(able)}"
        )
    losses = tuple(find_losses(readings, writing))
    if losses and not allow_loss:
        listed = "\n".join(f"  {loss}" for loss in losses)
        raise DataError(f"{name} would lose:\n{listed}\n--allow-loss writes it all the same")
    data = [reading.data for reading in readings]
    placed = place_images(data, writing, refer=images == "reference")
    note = tell_numbers(data, writing)
    return Plan(name, placed, dict(writing.texts(placed)), losses, (note,) if note else (), images)


def write(planned: Plan, destination: Path, *, progress: Progress | None = None) -> None:
    """Write ``planned`` to a temporary folder, read it again, and give it its name.

    An empty folder of that name gives way, and its permissions are kept; a link to one stays a link.

    Raises:
        PyrafuseError: If the file system refuses, or what was written is not read as it was meant.
    """
    destination = Path(os.path.realpath(destination))
    moves = _moves(planned)
    with hold_beside(destination) as temporary:
        sizes = [size_of(source) for source, _ in moves] if planned.images == "copy" else []
        needed = sum(sizes) + sum(map(len, planned.texts.values()))
        check_room(destination, needed, "free space, choose another place, or use --images link")
        for done, (source, place) in enumerate(moves, 1):
            _bring(source, temporary / place, planned.images)
            if progress:
                progress(done, len(moves))
        for place, text in planned.texts.items():
            path = temporary / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        _read_again(planned, temporary)
        if destination.is_dir():
            shutil.copymode(destination, temporary)
        os.replace(temporary, destination)


def _moves(planned: Plan) -> list[tuple[Path, str]]:
    if planned.images == "reference":
        return []
    return [
        (record.path, place)
        for split in planned.splits
        for record, place in zip(split.data.records, split.places, strict=True)
    ]


def check_room(destination: Path, needed: int, remedy: str) -> None:
    """Refuse a folder whose disk lacks room.

    Args:
        destination: The folder, absolute; it need not be there.
        needed: Bytes.
        remedy: What to do where they are not free.

    Raises:
        PyrafuseError: If fewer bytes are free.
    """
    folder = next(parent for parent in destination.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PyrafuseError(f"{destination} needs {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free; {remedy}")


def _bring(source: Path, target: Path, how: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(source)
    if how == "copy":
        target.write_bytes(read_bytes(source)) if find_member(source) else shutil.copyfile(real, target)
        return
    try:
        os.link(real, target)
    except OSError as error:
        raise PyrafuseError(
            f"{source} cannot be linked to {target.parent}: {error.strerror}; use --images copy"
        ) from error


def _read_again(planned: Plan, folder: Path) -> None:
    """Read what was written, and compare every box: what is read otherwise was not written as it was meant.

    Raises:
        PyrafuseError: With the first difference.
    """
    rules = ReadingRules(exif="upright")
    try:
        found = {reading.data.split: reading.data for reading in read_all(folder, rules=rules)}
    except DataError as error:
        reason = str(error).replace(os.fspath(folder), planned.format)
        raise PyrafuseError(f"these data cannot be held by {planned.format}: {reason}") from error
    reach = _SAME_PX if FRACTIONS in find_writing(planned.format).keeps else _HALF_PX
    for split in planned.splits:
        if reason := _differ(split, found.get(split.data.split), folder, reach):
            raise PyrafuseError(f"these data cannot be held by {planned.format}: {reason}")


def _differ(split: PlacedSplit, found: DetectionData | None, folder: Path, reach: float) -> str:
    """What is read otherwise than it was; empty where nothing is."""
    if found is None:
        return f"the split {split.data.split or 'without a name'} is not found again"
    records = {os.path.relpath(record.path, folder): record for record in found.records}
    for record, place in zip(split.data.records, split.places, strict=True):
        other = records.get(os.path.relpath(folder / place, folder))
        if other is None:
            return f"the image {record.path} is not found again under the name {place!r}; rename it"
        names = [split.data.names[label] for label in record.labels]
        if [found.names[label] for label in other.labels] != names:
            return f"the objects of {record.path} have other classes when they are read again; rename the classes"
        if len(names) and np.abs(record.boxes - other.boxes).max() > reach:
            return f"the boxes of {record.path} are others when they are read again"
    return ""
