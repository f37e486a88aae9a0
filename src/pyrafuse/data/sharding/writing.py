"""A data set as tar shards: readings -> tar files of images and their JSON -> an index -> read again, then named.

A shard is a plain tar file as WebDataset has it: ``000000017.jpg``, the bytes of the image as they were, and beside it
``000000017.json`` with its objects. Nothing is encoded anew.
"""

import json
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.reading import IMAGE_SUFFIXES, read_header
from pyrafuse.base.locking import hold_beside
from pyrafuse.base.members import read_bytes, size_of
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.sharding.index import (
    BLOCK,
    IMAGES,
    INDEX_FILE,
    NUMBER_ID,
    OBJECTS,
    VERSION,
    Manifest,
    ShardFacts,
    ShardRecords,
    SplitFacts,
    TableFacts,
    checksum,
    read_manifest,
    read_split,
    table_files,
)
from pyrafuse.data.writing.converting import check_room

Progress = Callable[[int, int], None]
"""Called with the images done and the number of all."""


@dataclass(frozen=True)
class Sharded:
    """What was written.

    Attributes:
        num_images: Images of each split.
        num_shards: Shards of each split.
        problems: The images that were left out: they cannot be read, or have another size than their annotation says.
    """

    num_images: dict[str, int]
    num_shards: dict[str, int]
    problems: tuple[Problem, ...]


def write_shards(
    readings: Sequence[Reading], destination: Path, *, shard_bytes: int, progress: Progress | None = None
) -> Sharded:
    """Write the splits to a temporary folder, read its index again, and give it its name.

    Args:
        readings: The splits, under one list of classes; see `read_all`.
        destination: Folder to create.
        shard_bytes: Size of a shard at most; one image is never divided.
        progress: Called for each image.

    Raises:
        DataError: If a split keeps no image.
        PyrafuseError: If the file system refuses, or what was written is not read as it was meant.
    """
    destination = destination.absolute()
    total, before = sum(len(reading.data) for reading in readings), 0
    splits, problems = {}, []
    with hold_beside(destination) as temporary:
        needed = sum(size_of(record.path) + 3 * BLOCK for reading in readings for record in reading.data.records)
        check_room(destination, needed, "free space or choose another place")
        for reading in readings:
            with _SplitWriter(temporary, reading.data.split, reading.data.names, shard_bytes) as writer:
                for done, record in enumerate(reading.data.records, before + 1):
                    if (problem := writer.add(record)) is not None:
                        problems.append(problem)
                    if progress:
                        progress(done, total)
            before += len(reading.data)
            splits[reading.data.split] = writer.facts()
        data = readings[0].data
        manifest = Manifest(VERSION, data.names, data.category_ids, splits)
        (temporary / INDEX_FILE).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
        left_out = {problem.file for problem in problems}
        for reading in readings:
            _read_again(temporary, reading, left_out)
        os.replace(temporary, destination)  # an empty folder gives way
    return Sharded(
        {split: facts.tables["images"].rows for split, facts in splits.items()},
        {split: len(facts.shards) for split, facts in splits.items()},
        tuple(problems),
    )


class _SplitWriter:
    """Writes the shards and the tables of one split; rows go to the disk as they come."""

    def __init__(self, folder: Path, split: str, names: Sequence[str], shard_bytes: int) -> None:
        self._folder, self._split, self._names, self._shard_bytes = folder, split, names, shard_bytes
        self._files = {kind: (folder / name).open("wb") for kind, (name, _) in table_files(split).items()}
        self._counts = dict.fromkeys(self._files, 0)
        self._shards: list[str] = []
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> "_SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()
        for stream in self._files.values():
            stream.close()

    def add(self, record: ImageRecord) -> Problem | None:
        """Write an image and its objects, or tell why it is left out."""
        place = f"image {record.image_id}"
        try:
            content = read_bytes(record.path)
            height, width = read_header(record.path, data=content).upright_size
        except (DataError, OSError) as error:
            return Problem("error", "unreadable image", record.path, place, str(error), "left out; replace it")
        if (height, width) != (record.height, record.width):
            return Problem(
                "error", "image size differs from its annotation", record.path, place,
                f"annotated {record.width} x {record.height}, it has {width} x {height} pixels",
                "left out; correct the annotation or replace the image",
            )  # fmt: skip
        suffix = record.path.suffix.lower()
        key = f"{self._counts['images']:09d}"
        start = self._add_file(f"{key}{suffix if suffix in IMAGE_SUFFIXES else '.img'}", content, begins=True)
        self._add_file(f"{key}.json", json.dumps(describe(record, self._names)).encode(), begins=False)
        name, own_id = os.fsencode(record.path.name), record.image_id
        text_id = own_id.encode() if isinstance(own_id, str) else b""
        self._put("objects", _objects_of(record).tobytes(), len(record.labels))
        row = np.zeros((), IMAGES)
        row["start"], row["size"], row["crc"], row["shard"] = (
            start, len(content), zlib.crc32(content), len(self._shards) - 1,
        )  # fmt: skip
        row["width"], row["height"], row["objects_end"] = record.width, record.height, self._counts["objects"]
        row["text_start"], row["name_size"] = self._counts["names"], len(name)
        row["id_size"], row["id"] = (len(text_id), 0) if isinstance(own_id, str) else (NUMBER_ID, own_id)
        self._put("names", name + text_id, len(name) + len(text_id))
        self._put("images", row.tobytes(), 1)
        return None

    def facts(self) -> SplitFacts:
        """What the index says of the split; it is complete.

        Raises:
            DataError: If no image was kept.
        """
        if not self._counts["images"]:
            raise DataError(f"no image of the split {self._split or 'without a name'} can be read")
        shards = tuple(ShardFacts(name, (self._folder / name).stat().st_size) for name in self._shards)
        tables = {
            kind: TableFacts(self._counts[kind], checksum(self._folder / name))
            for kind, (name, _) in table_files(self._split).items()
        }
        return SplitFacts(shards, tables)

    def _put(self, kind: str, content: bytes, rows: int) -> None:
        self._files[kind].write(content)
        self._counts[kind] += rows

    def _add_file(self, name: str, content: bytes, *, begins: bool) -> int:
        """Write a file into the shard, or into a new one where it ``begins`` an image and would not fit; its offset."""
        if self._tar is None or (begins and self._tar.offset and self._tar.offset + len(content) > self._shard_bytes):
            if self._tar is not None:
                self._tar.close()
            self._shards.append(f"{self._split or 'all'}-{len(self._shards):06d}.tar")
            self._tar = tarfile.open(self._folder / self._shards[-1], "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        entry = tarfile.TarInfo(name)  # of no owner and no time: the same data give the same shards
        entry.size = len(content)
        start = cast("int", self._tar.offset) + BLOCK
        self._tar.addfile(entry, BytesIO(content))
        return start


def describe(record: ImageRecord, names: Sequence[str]) -> dict[str, Any]:
    """What the JSON beside an image tells, for other programs: our own reading takes the index."""
    rows = zip(record.boxes, record.labels, record.crowd, record.areas, strict=True)
    return {
        "file_name": record.path.name.encode("utf-8", "backslashreplace").decode(),
        "image_id": record.image_id,
        "width": record.width,
        "height": record.height,
        "objects": [
            {
                "box": [float(str(value)) for value in box],  # the shortest decimals of a float32
                "class": names[int(label)],
                "crowd": bool(crowd),
                "area": float(str(area)),
            }
            for box, label, crowd, area in rows
        ],
    }


def _objects_of(record: ImageRecord) -> np.ndarray:
    objects = np.zeros(len(record.labels), OBJECTS)
    objects["box"], objects["area"] = record.boxes, record.areas
    objects["label"], objects["crowd"] = record.labels, record.crowd
    return objects


def _read_again(folder: Path, reading: Reading, left_out: set[Path]) -> None:
    """Compare what was written with what was meant: the index by itself, and the shards by their own headers.

    Raises:
        PyrafuseError: With the first difference.
    """
    index = read_split(folder, reading.data.split, read_manifest(folder))
    kept = (record for record in reading.data.records if record.path not in left_out)
    for row, (record, found) in enumerate(zip(kept, ShardRecords(index), strict=True)):
        same = (record.image_id, record.path.name) == (found.image_id, found.path.name)
        if not (same and (_objects_of(record) == _objects_of(found)).all()):
            raise PyrafuseError(f"{record.path} is read otherwise than it was written, as image {row + 1}; report it")
    for number, name in enumerate(index.shards):
        expected = index.images[index.images["shard"] == number]
        with tarfile.open(folder / name) as tar:
            files = [(entry.offset_data, entry.size) for entry in tar][::2]
        if files != list(zip(expected["start"].tolist(), expected["size"].tolist(), strict=True)):
            raise PyrafuseError(f"{name} does not hold its images where they were written; report it")
