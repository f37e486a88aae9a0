"""One shard: its entries -> frames -> detector -> a file a format and two tables, each whole or not there.

OUTPUT/manifest.json               what all of it depends on
OUTPUT/sources.parquet             id and source of every image
OUTPUT/detections/00000.parquet    what was found, one file a shard for each format
OUTPUT/unreadable/00000.parquet    images that could not be read, and why
OUTPUT/images/00000.parquet        images that were predicted on; written last: where it lies, the shard is done
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.ahead import make_ahead
from pyrafuse.base.images.sources import Frame, open_source, read_still
from pyrafuse.base.members import fetch, is_remote
from pyrafuse.base.predictor import Predictor
from pyrafuse.base.printable import printable
from pyrafuse.base.views.detecting import count_ahead
from pyrafuse.inference.finding import Settings, find_in
from pyrafuse.inference.shards.parquet import opened, read_rows
from pyrafuse.inference.shards.plan import read_plan
from pyrafuse.inference.shards.sources import Entry, with_password
from pyrafuse.inference.tables import IMAGES, UNREADABLE, arrow, write_table
from pyrafuse.inference.writers.registry import Destination, Places, create_writers

BEGUN = ".begun"
"""Folder of a file for each shard that workers have begun and not done, of as many bytes as began it."""

Load = Callable[[str, int | None], Predictor]
"""Reads the detector: device and number of threads, by default all, -> a predictor."""


@dataclass(frozen=True)
class Job:
    """What every worker knows.

    Attributes:
        output: The folder of results, from the root on.
        load: Reads the detector.
        settings: What is asked of it.
        formats: What is written.
        passwords: User and password of hosts.
        imports: Modules and files of the user's that a worker imports first.
    """

    output: Path
    load: Load
    settings: Settings
    formats: tuple[str, ...] = ("parquet",)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    imports: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What became of a shard; without an image it was left.

    Attributes:
        shard: Its number.
        images: Images that were predicted on.
        objects: Objects found in them.
        unreadable: Images that could not be read.
        problem: Why it is not done, in words; empty where it is.
    """

    shard: int
    images: int = 0
    objects: int = 0
    unreadable: int = 0
    problem: str = ""


@dataclass(frozen=True)
class ShardDestination(Destination):
    """Where one shard's results go: ``predictions.json`` is ``predictions/00012.json``.

    Attributes:
        number: The shard's.
    """

    ids_by_name: bool = False
    number: int = 0

    def places(self, name: str) -> Places:
        """Refused: a million files are no use to anybody.

        Raises:
            PyrafuseError: Always.
        """
        raise _refuse_files(f"those in {name}/")

    def file(self, name: str) -> Path:
        """The shard's file in the folder that stands for the one file ``name``."""
        path = file_of(self.folder, Path(name).stem, self.number, Path(name).suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def claim(self, path: Path) -> Path:
        """``path``: all below the folder is of this prediction, as its manifest says."""
        return path


def _refuse_files(name: str) -> PyrafuseError:
    return PyrafuseError(
        f"--engine ray and --shard-images write no file an image, which {name} are: give --formats of parquet, coco "
        "and json"
    )


def check_formats(formats: Sequence[str]) -> None:
    """Refuse formats that are none of shards.

    Raises:
        UnknownNameError: If there is no such format.
        PyrafuseError: If one writes a file an image, or pictures.
    """
    with TemporaryDirectory() as nowhere:
        for name, writer in zip(
            dict.fromkeys(formats), create_writers(formats, ShardDestination(Path(nowhere))), strict=True
        ):
            if writer.needs_pixels:
                raise _refuse_files(f"those of {name}")


def file_of(folder: Path, name: str, number: int, suffix: str = ".parquet") -> Path:
    """The file of shard ``number`` in the folder ``name``."""
    return folder / name / f"{number:05}{suffix}"


def is_done(folder: Path, number: int) -> bool:
    """Whether shard ``number`` is done."""
    return file_of(folder, "images", number).is_file()


def read_outcome(folder: Path, number: int) -> Outcome:
    """What became of shard ``number``, which is done.

    Raises:
        DataError: If its tables cannot be read.
    """
    parquet = arrow().parquet
    try:
        objects = parquet.read_table(file_of(folder, "images", number), columns=["objects"]).column(0)
        unreadable = parquet.read_metadata(file_of(folder, "unreadable", number)).num_rows
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file_of(folder, 'images', number)} or that of unreadable/ cannot be read: {error}; remove both, and the "
            "same command makes the shard anew"
        ) from error
    return Outcome(number, len(objects), sum(objects.to_pylist()), unreadable)


def predict_shard(job: Job, detector: Predictor, number: int) -> Outcome:
    """Predict on the images of shard ``number`` and write its files; nothing if it is done.

    Args:
        job: What is asked.
        detector: Predicts.
        number: The shard's number.

    Raises:
        PyrafuseError: If a file cannot be written, or the detector refuses.
    """
    if is_done(job.output, number):
        return read_outcome(job.output, number)
    entries, first = read_plan(job.output, number)
    destination = ShardDestination(job.output, None, tuple(detector.card.category_ids), number=number)
    writers = create_writers(job.formats, destination)
    images: list[tuple[object, ...]] = []
    unreadable: list[tuple[object, ...]] = []
    num_objects = 0

    def pass_over(frame: Frame) -> None:
        unreadable.append((frame.index, frame.name, frame.error or "cannot be read"))

    depth = count_ahead(detector, job.settings.batch) + 1
    try:
        with closing(make_ahead(read_frames(entries, first, job.passwords), depth=depth)) as frames:
            for finding in find_in(detector, frames, job.settings, pass_over=pass_over):
                for writer in writers:
                    writer.write(finding)
                found = finding.detections
                height, width = found.image_size
                images.append((finding.index, found.source, width, height, len(found)))
                num_objects += len(found)
        for writer in writers:
            writer.close()
    except BaseException:  # an interrupt too: no part of a shard is kept
        for writer in writers:
            writer.discard()
        raise
    write_table(file_of(job.output, "unreadable", number), UNREADABLE, unreadable)
    write_table(file_of(job.output, "images", number), IMAGES, images)
    return Outcome(number, len(images), num_objects, len(unreadable))


def read_frames(entries: Sequence[Entry], first: int, passwords: dict[str, str]) -> Iterator[Frame]:
    """The image of each entry, or what is wrong with it, named by its list and row; the ids begin at ``first``."""
    index = first
    for (file, column), some in groupby(entries, lambda entry: (entry.listed_in if entry.column else "", entry.column)):
        for entry, frame in _read_some(list(some), file, column, passwords):
            error = frame.error
            if error is not None and entry.place:
                error = f"{entry.place}: {error}"
            yield Frame(entry.source, frame.image, error, index, notes=frame.notes)
            index += 1


def _read_some(
    entries: list[Entry], file: str, column: str, passwords: dict[str, str]
) -> Iterator[tuple[Entry, Frame]]:
    if not column:
        for entry in entries:
            yield entry, _read_one(entry, passwords)
        return
    done = 0
    try:
        with opened(file, with_password(file, passwords)) as stream:
            for entry, data in zip(
                entries, read_rows(file, stream, column, [entry.row for entry in entries]), strict=True
            ):
                yield entry, read_still(Path(entry.source), entry.source, data=data)
                done += 1
    except DataError as error:  # of the file: all that was to come of it
        for entry in entries[done:]:
            yield entry, Frame(entry.source, None, str(error))


def _read_one(entry: Entry, passwords: dict[str, str]) -> Frame:
    if entry.problem:
        return Frame(entry.source, None, entry.problem)
    if not is_remote(entry.source):
        return read_still(Path(entry.source), entry.source)
    address = with_password(entry.source, passwords)
    if address.partition("://")[0].lower() in {"http", "https"}:
        frame = next(iter(open_source([address])))
        return frame if frame.fps is None else Frame(frame.name, None, f"{printable(entry.source)} is a video")
    try:
        return read_still(Path(entry.source), entry.source, data=fetch(address))
    except DataError as error:
        return Frame(entry.source, None, str(error))
