"""The index of a sharded data set: a row an image and a row an object, in files that are mapped into memory.

    shards.json       classes; for each split its shards, how many images and objects it has, and the checksums below
    SPLIT.images      where each image lies, its size and its first object (`IMAGES`)
    SPLIT.objects     the objects, in the order of the images (`OBJECTS`)
    SPLIT.names       the images' own file names, and their ids where these are texts

Records are made when they are asked for: of a million images only the tables are in memory, shared by all processes.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError, PyrafuseError, check_between, unknown_name
from pyrafuse.base.members import Member
from pyrafuse.base.printable import printable
from pyrafuse.base.records import ImageRecord
from pyrafuse.base.spec import MOST_CLASSES
from pyrafuse.base.typed_values import create
from pyrafuse.data.reading.documents import read_json
from pyrafuse.data.reading.folders import SPLIT_WORDS

INDEX_FILE = "shards.json"
VERSION = 1
MOST_BYTES = 1 << 28
"""Size of the largest `INDEX_FILE` that is read: a million shards have a tenth of it."""

BLOCK = 512
"""Bytes of a tar block: every file in it begins at a multiple of it, behind a header of one block."""

NUMBER_ID = -1
"""In place of the length of an image's id: it is the number in ``id``."""

IMAGES = np.dtype([
    ("start", "<u8"), ("size", "<u8"), ("crc", "<u4"), ("shard", "<u4"), ("width", "<u4"), ("height", "<u4"),
    ("objects_end", "<u8"), ("text_start", "<u8"), ("name_size", "<u4"), ("id_size", "<i4"), ("id", "<i8"),
])  # fmt: skip
OBJECTS = np.dtype([("box", "<f4", 4), ("area", "<f4"), ("label", "<i4"), ("crowd", "?")])

_BYTE = np.dtype("u1")
_REMEDY = "write the shards again with `pyrafuse data shard`, or copy them anew"


@dataclass(frozen=True)
class ShardFacts:
    """Name and size of a shard.

    Attributes:
        file: Its file name.
        bytes: Its size.
    """

    file: str
    bytes: int

    def __post_init__(self) -> None:
        if re.fullmatch(r"[A-Za-z0-9_-]{1,100}\.tar", self.file) is None:
            raise DataError(f"{self.file!r} is no name of a shard")
        check_between(f"bytes of {self.file}", self.bytes, 0, 2**60)


@dataclass(frozen=True)
class TableFacts:
    """Number of rows and checksum of a table.

    Attributes:
        rows: Number of its rows.
        sha256: SHA-256 of its file.
    """

    rows: int
    sha256: str

    def __post_init__(self) -> None:
        check_between("rows", self.rows, 0, 2**48)


@dataclass(frozen=True)
class SplitFacts:
    """What a split consists of.

    Attributes:
        shards: In order.
        tables: By kind: ``images``, ``objects``, ``names``.
    """

    shards: tuple[ShardFacts, ...]
    tables: dict[str, TableFacts]

    def __post_init__(self) -> None:
        if self.tables.keys() != table_files("").keys():
            raise DataError(f"the tables are {', '.join(table_files(''))}, not {', '.join(map(str, self.tables))}")


@dataclass(frozen=True)
class Manifest:
    """What `INDEX_FILE` holds.

    Attributes:
        version: Version of this layout.
        classes: Names of the classes of all splits.
        category_ids: The annotations' own id of each.
        splits: By name; ``""`` is a split without one.
    """

    version: int
    classes: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    splits: dict[str, SplitFacts]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise DataError(f"version {self.version} of the layout is not known, only {VERSION}")
        if not len({*self.classes}) == len(self.classes) == len(self.category_ids) <= MOST_CLASSES:
            raise DataError(f"{len(self.classes)} classes, {len({*self.classes})} names, {len(self.category_ids)} ids")
        check_between("classes", len(self.classes), 1)
        for split in self.splits:
            if split not in {"", *SPLIT_WORDS.values()}:
                raise unknown_name("split", str(split), sorted({*SPLIT_WORDS.values()}))


@dataclass(frozen=True)
class SplitIndex:
    """The tables of one split.

    Attributes:
        folder: Where the shards lie.
        shards: File name of each shard.
        images: (N,) of `IMAGES`.
        objects: (M,) of `OBJECTS`.
        texts: (T,) bytes.
    """

    folder: Path
    shards: tuple[str, ...]
    images: NDArray[np.void]
    objects: NDArray[np.void]
    texts: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class ShardRecords(Sequence[ImageRecord]):
    """The images of a split as records, each made anew when it is asked for."""

    tables: SplitIndex = field(repr=False)

    def __len__(self) -> int:
        return len(self.tables.images)

    @overload
    def __getitem__(self, row: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[ImageRecord, ...]: ...

    def __getitem__(self, row: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        if isinstance(row, slice):
            return tuple(self[i] for i in range(*row.indices(len(self))))
        row = range(len(self))[row]
        index = self.tables
        image = index.images[row]
        first = int(index.images["objects_end"][row - 1]) if row else 0
        objects = index.objects[first : int(image["objects_end"])]
        text, name_size, id_size = (int(image[name]) for name in ("text_start", "name_size", "id_size"))
        name = os.fsdecode(index.texts[text : text + name_size].tobytes())
        image_id: int | str = int(image["id"])
        if id_size != NUMBER_ID:
            image_id = index.texts[text + name_size : text + name_size + id_size].tobytes().decode()
        shard = index.folder / index.shards[int(image["shard"])]
        member = Member(shard, int(image["start"]), int(image["size"]), int(image["crc"]))
        return ImageRecord(
            member.path(name),
            image_id,
            int(image["width"]),
            int(image["height"]),
            objects["box"].copy(),
            objects["label"].astype(np.int64),
            objects["crowd"].copy(),
            objects["area"].copy(),
        )


def table_files(split: str) -> dict[str, tuple[str, np.dtype[Any]]]:
    """File and rows of each table of ``split``; a split without a name is called ``all`` there."""
    kinds = {"images": IMAGES, "objects": OBJECTS, "names": _BYTE}
    return {kind: (f"{split or 'all'}.{kind}", rows) for kind, rows in kinds.items()}


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """What `INDEX_FILE` in ``folder`` says.

    Raises:
        DataError: If it cannot be read, or says what cannot be.
    """
    path = folder / INDEX_FILE
    content = read_json(path, most=MOST_BYTES)
    try:
        return create(Manifest, content)
    except PyrafuseError as error:
        raise DataError(f"{printable(path)}: {error}; {_REMEDY}") from error


def read_split(folder: Path, split: str, manifest: Manifest) -> SplitIndex:
    """The tables of ``split``, checked: they may come from anybody.

    Args:
        folder: Folder of the index and of the shards, which are measured where they are here.
        split: Its name.
        manifest: Manifest of the data set.

    Raises:
        DataError: If a file is missing, was changed, or holds a row that cannot be.
    """
    facts, files = manifest.splits[split], table_files(split)
    for shard in facts.shards:
        path = folder / shard.file
        if path.is_file() and (found := path.stat().st_size) != shard.bytes:
            raise DataError(f"{printable(path)} has {found:,} bytes, its index says {shard.bytes:,}: copy it anew")
    images, objects, names = (_map(folder / name, rows, facts.tables[kind]) for kind, (name, rows) in files.items())
    index = SplitIndex(folder, tuple(shard.file for shard in facts.shards), images, objects, names)
    _check_images(index, np.array([shard.bytes for shard in facts.shards], np.uint64), folder / files["images"][0])
    _check_objects(index, len(manifest.classes), folder / files["objects"][0])
    return index


def _map(path: Path, rows: np.dtype[Any], table: TableFacts) -> NDArray[Any]:
    """The rows of a table, mapped into memory."""
    try:
        size = path.stat().st_size
        if size != table.rows * rows.itemsize:
            raise DataError(
                f"{printable(path)} has {size:,} bytes, and {table.rows:,} rows have {table.rows * rows.itemsize:,}; "
                f"{_REMEDY}"
            )
        if checksum(path) != table.sha256:
            raise DataError(f"{printable(path)} is not the table that {INDEX_FILE} speaks of; {_REMEDY}")
        return np.memmap(path, rows, "r", shape=(table.rows,)) if table.rows else np.zeros(0, rows)
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read: {error.strerror or error}; {_REMEDY}") from error


def _check_images(index: SplitIndex, sizes: NDArray[np.uint64], path: Path) -> None:
    images = index.images
    if not len(images):
        return
    start, size, shard = images["start"], images["size"], images["shard"]
    _refuse(shard >= len(sizes), path, "image", shard, f"is in a shard above {len(sizes) - 1}")
    limits = sizes[shard]
    is_outside = (size == 0) | (size > limits) | (start > limits - np.minimum(size, limits)) | (start % BLOCK != 0)
    _refuse(is_outside, path, "image", start, "begins at a byte at which its shard has no file of its size")
    for side in ("width", "height"):
        pixels = images[side]
        _refuse((pixels == 0) | (pixels > 2**31 - 1), path, "image", pixels, f"has no such {side} in pixels")
    ends = images["objects_end"]
    is_wrong = np.diff(ends.astype(np.int64), prepend=0) < 0
    is_wrong |= ends > len(index.objects)
    is_wrong[-1] |= ends[-1] != len(index.objects)
    _refuse(is_wrong, path, "image", ends, f"ends at such an object, and there are {len(index.objects):,} in order")
    lengths = images["name_size"].astype(np.int64) + np.maximum(images["id_size"], 0)
    starts = np.cumsum(lengths) - lengths
    is_wrong = (images["name_size"] == 0) | (images["text_start"] != starts.astype(np.uint64))
    is_wrong |= (images["id_size"] < NUMBER_ID) | (starts + lengths > len(index.texts))
    _refuse(is_wrong, path, "image", images["text_start"], "is no byte at which its name begins")
    # a name that leads to another folder is refused; ids may be anything
    odd = np.flatnonzero((index.texts == ord("/")) | (index.texts == 0) | (index.texts == ord("\\")))
    rows = np.searchsorted(starts, odd, side="right") - 1
    is_wrong = np.zeros(len(images), bool)
    is_wrong[rows[odd < (starts + images["name_size"])[rows]]] = True
    is_wrong |= (images["name_size"] <= 2) & (index.texts[starts] == ord("."))
    _refuse(is_wrong, path, "image", images["text_start"], "is the byte of a name that is none of a file")


def _check_objects(index: SplitIndex, num_classes: int, path: Path) -> None:
    objects, images = index.objects, index.images
    if not len(objects):
        return
    label = objects["label"]
    _refuse((label < 0) | (label >= num_classes), path, "object", label, f"is of a class above {num_classes - 1}")
    counts = np.diff(images["objects_end"].astype(np.int64), prepend=0)
    sides = np.repeat(np.stack([images["width"], images["height"]], axis=1).astype(np.float32), counts, axis=0)
    low, high = objects["box"][:, :2], objects["box"][:, 2:]
    is_sound = np.asarray(np.all((low >= 0) & (high > low) & (high <= sides), axis=1))  # NaN is none of these
    _refuse(~is_sound, path, "object", objects["box"], "has no such box in its image")
    area = objects["area"]
    _refuse(~(np.isfinite(area) & (area >= 0)), path, "object", area, "has no such area")


def _refuse(is_wrong: NDArray[np.bool_], path: Path, what: str, values: NDArray[Any], why: str) -> None:
    """Refuse a table with a row that is wrong.

    Raises:
        DataError: With the first one.
    """
    if is_wrong.any():
        row = int(np.argmax(is_wrong))
        raise DataError(f"{printable(path)}, {what} {row + 1:,}: {values[row].tolist()} {why}; {_REMEDY}")
