"""What a folder of shards is a prediction of: the images in their order, and a manifest of all else that matters.

sources -> entries -> sources.parquet, a group of rows a shard -> manifest.json -> the same, or refused
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.printable import list_names, printable
from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.inference.shards.sources import Entry
from pyrafuse.inference.tables import arrow, schema_of, table_of

MANIFEST, SOURCES = "manifest.json", "sources.parquet"
VERSION = 1

PLAN = {
    "image_id": "int64",
    "source": "string",
    "listed_in": "string",
    "row": "int64",
    "column": "string",
    "problem": "string",
}
"""Columns of `SOURCES`, a row an image; its id is its rank."""


@dataclass(frozen=True)
class Planned:
    """The images of a prediction.

    Attributes:
        num_images: How many there are.
        digest: SHA-256 of their names, in order.
    """

    num_images: int
    digest: str


def write_plan(entries: Iterable[Entry], stream: IO[bytes], shard_images: int) -> Planned:
    """Write `SOURCES`; memory holds one shard of it.

    Raises:
        DataError: If there is no entry.
    """
    digest, first, waiting = hashlib.sha256(), 0, iter(entries)
    with arrow().parquet.ParquetWriter(stream, schema_of(PLAN)) as writer:
        while some := list(islice(waiting, shard_images)):
            rows = [(first + rank, e.source, e.listed_in, e.row, e.column, e.problem) for rank, e in enumerate(some)]
            for entry in some:
                digest.update(f"{entry.source}\n".encode("utf-8", "backslashreplace"))
            writer.write_table(table_of(PLAN, rows), row_group_size=shard_images)
            first += len(some)
    if not first:
        raise DataError("the sources name no image; a list has one path or address a line")
    return Planned(first, digest.hexdigest())


def read_plan(folder: Path, number: int) -> tuple[list[Entry], int]:
    """The entries of shard ``number``, and the id of the first one.

    Raises:
        DataError: If they cannot be read.
    """
    path = folder / SOURCES
    try:
        table = arrow().parquet.ParquetFile(path).read_row_group(number)
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{printable(path)}, shard {number}: {error}; begin in a new --output") from error
    rows = table.select(list(PLAN)[1:]).to_pylist()
    return [Entry(**row) for row in rows], table.column("image_id")[0].as_py()


def keep_plan(folder: Path, entries: Iterable[Entry], shard_images: int, facts: Mapping[str, Any]) -> Planned:
    """Write what the shards in ``folder`` are of, or find that it is the same as before.

    Args:
        folder: The folder, which this process holds.
        entries: The images.
        shard_images: Images a shard.
        facts: All else that the results depend on, in plain values.

    Raises:
        PyrafuseError: If the folder holds another prediction, which is told, or files of others.
    """
    earlier = _read_manifest(folder)
    with write_atomically(folder / SOURCES) as stream:
        planned = write_plan(entries, stream, shard_images)
        manifest = {
            "pyrafuse_shards": VERSION,
            **facts,
            "shard_images": shard_images,
            "num_images": planned.num_images,
            "sources_sha256": planned.digest,
        }
        if earlier is not None:
            _compare(folder, earlier, json.loads(json.dumps(manifest)))
    if earlier is None:
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1))
    return planned


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    if not path.exists():
        others = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name != SOURCES)
        if others:
            raise PyrafuseError(
                f"{folder} holds {list_names(others, most=3)}, and no shards of predictions: choose a new --output"
            )
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {printable(error, limit=200)}; choose a new --output") from error
    if not isinstance(manifest, dict) or manifest.get("pyrafuse_shards") != VERSION:
        raise DataError(f"{path} is no manifest of predictions in shards of this version: choose a new --output")
    return manifest


def _compare(folder: Path, earlier: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [name for name in {**earlier, **asked} if earlier.get(name) != asked.get(name)]
    if differing:
        told = [f"{name} {_shown(earlier.get(name))} there, {_shown(asked.get(name))} here" for name in differing[:4]]
        raise PyrafuseError(f"{folder} holds another prediction: {'; '.join(told)}. Give the same, or a new --output")


def _shown(value: object) -> str:
    return "none" if value is None else printable(json.dumps(value), limit=80)
