"""What is predicted on, image by image: folders, lists, Parquet files, globs and addresses -> `Entry`s, in order."""

import glob
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import check_file, list_files
from pyrafuse.base.images.reading import IMAGE_SUFFIXES, REMEDIES
from pyrafuse.base.images.sources import STREAM_SCHEMES, VIDEO_SUFFIXES, list_pictures, natural_order
from pyrafuse.base.members import is_remote, reading, split_password
from pyrafuse.base.paths import check_source, expand_user
from pyrafuse.base.printable import hide_logins, printable
from pyrafuse.inference.shards.parquet import Column, choose_column, opened, read_texts

LIST, PARQUET = ".txt", ".parquet"
LONGEST_LINE = 10_000
"""Letters of the longest line that a list may have."""

_VIDEO = "it is a video, of which no shards are made: predict on it without --engine ray and --shard-images"


@dataclass(frozen=True)
class Entry:
    """An image to predict on.

    Attributes:
        source: Its path, from the root on, or its address without a password; FILE#ROW where a Parquet file holds it.
        listed_in: The list or Parquet file that names or holds it; empty where none does.
        row: Its line there, from 1 on, or its row, from 0 on.
        column: The column of the Parquet file that holds it; empty where it is a file of its own.
        problem: Why it cannot be read, where that is known already.
    """

    source: str
    listed_in: str = ""
    row: int = 0
    column: str = ""
    problem: str = ""

    @property
    def place(self) -> str:
        """Where it is listed, for messages."""
        if not self.listed_in:
            return ""
        unit = "line" if self.listed_in.lower().endswith(LIST) else "row"
        return f"{printable(self.listed_in)}, {unit} {self.row}"


@dataclass
class Listing:
    """What is learnt while sources are read.

    Attributes:
        passwords: User and password of each ``scheme://host`` that has them.
        columns: The column that was taken of each Parquet file.
        passed_over: Number of files that are no images, by suffix.
        repeated: Number of entries that name an image again.
    """

    passwords: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def keep_password(self, address: str) -> str:
        """``address`` without its password, which is kept.

        Raises:
            DataError: If the host has another one.
        """
        shown, password = split_password(address)
        if password and self.passwords.setdefault(host_of(shown), password) != password:
            raise DataError(f"{printable(host_of(shown))} is given with two passwords: give one")
        return shown


def host_of(address: str) -> str:
    """``scheme://host`` of an address."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def with_password(address: str, passwords: dict[str, str]) -> str:
    """``address`` with the user and password of its host, where there are any."""
    password = passwords.get(host_of(address))
    return address if password is None else address.replace("://", f"://{password}@", 1)


def read_entries(
    sources: tuple[str, ...], listing: Listing, *, column: str | None = None, leave_out: Path | None = None
) -> Iterator[Entry]:
    """Every image of ``sources``, each once, in an order that follows from the sources alone.

    Folders and globs are in natural order, lists and Parquet files in their own.

    Args:
        sources: Sources, as they are typed.
        listing: Is told what is learnt.
        column: The column to take of Parquet files; by default it follows from names and types.
        leave_out: The folder of results, in which nothing is a source.

    Raises:
        DataError: If a source is not there, or cannot be read; a list's message names the line.
        MissingLibraryError: If a library that a source needs is not installed.
    """
    seen: set[str] = set()
    for source in sources:
        for entry in _read_source(source, listing, column, leave_out):
            if entry.source in seen:
                listing.repeated += 1
                continue
            seen.add(entry.source)
            yield _check_name(entry)


def _check_name(entry: Entry) -> Entry:
    """The entry, with a problem where its name tells one."""
    if not entry.problem and not entry.column and suffix_of(entry.source) in VIDEO_SUFFIXES:
        return replace(entry, problem=_VIDEO)
    try:
        entry.source.encode()
    except UnicodeEncodeError:
        return replace(entry, problem="its name is no UTF-8: rename it")
    return entry


def suffix_of(source: str) -> str:
    """Suffix of a path or an address, in lower case."""
    return PurePosixPath(source.partition("?")[0] if is_remote(source) else source).suffix.lower()


def _read_source(source: str, listing: Listing, column: str | None, leave_out: Path | None) -> Iterator[Entry]:
    if is_remote(source):
        return _read_address(source, listing, column)
    check_source(source)
    path = Path(expand_user(source)).absolute()
    if path.is_dir():
        return _read_folder(path, listing, column, leave_out)
    if path.exists():
        check_file(path)
        return _read_one(str(path), listing, column)
    if source.isdecimal():
        raise DataError(f"camera {source}: no shards are made of a camera; leave --engine ray and --shard-images out")
    found = sorted((Path(name) for name in glob.glob(str(path), recursive=True)), key=natural_order)
    return (entry for one in found if one.is_file() for entry in _read_one(str(one), listing, column))


def _read_folder(folder: Path, listing: Listing, column: str | None, leave_out: Path | None) -> Iterator[Entry]:
    try:
        paths, others = list_pictures(folder, leave_out)
    except DataError:
        tables = [path for path in list_files(folder) if path.suffix.lower() == PARQUET]
        if leave_out is not None:
            tables = [path for path in tables if not path.resolve().is_relative_to(leave_out.resolve())]
        if not tables:
            raise
        for table in sorted(tables, key=natural_order):
            yield from _read_one(str(table), listing, column)
        return
    listing.passed_over.update(others)
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            listing.passed_over[path.suffix.lower()] += 1
        else:
            yield Entry(str(path))


def _read_address(address: str, listing: Listing, column: str | None) -> Iterator[Entry]:
    scheme, suffix = address.partition("://")[0].lower(), suffix_of(address)
    shown = listing.keep_password(address)
    if scheme in STREAM_SCHEMES:
        raise DataError(
            f"{printable(shown)}: no shards are made of a stream; leave --engine ray and --shard-images out"
        )
    is_file = suffix in {LIST, PARQUET, *IMAGE_SUFFIXES, *REMEDIES, *VIDEO_SUFFIXES} and not glob.has_magic(address)
    if scheme in {"http", "https"} or is_file:
        yield from _read_one(shown, listing, column)
        return
    with reading(address) as (system, path):
        found = system.glob(path) if glob.has_magic(path) else system.find(path)
        # a file system's own paths may lack the host
        start, own = shown.rstrip("/"), path.rstrip("/")
        before = start.removesuffix(own) if own and start.endswith(own) else ""
        names = [before + name if before else hide_logins(system.unstrip_protocol(name)) for name in found]
    names = sorted(names, key=lambda name: natural_order(Path(name)))
    readable = {*IMAGE_SUFFIXES, *REMEDIES}
    images = [name for name in names if suffix_of(name) in readable - VIDEO_SUFFIXES]
    tables = [name for name in names if suffix_of(name) == PARQUET]
    if not images and not tables:
        raise DataError(f"no images and no Parquet files at {printable(shown)}; check the address")
    chosen = images or tables
    listing.passed_over.update(suffix_of(name) for name in {*names} - {*chosen})
    for name in chosen:
        yield from _read_one(name, listing, column)


def _read_one(source: str, listing: Listing, column: str | None) -> Iterator[Entry]:
    """The entries of a list or a Parquet file; the entry of an image."""
    suffix = suffix_of(source)
    if suffix == LIST:
        return _read_list(source, listing)
    if suffix == PARQUET:
        return _read_parquet(source, listing, column)
    return iter([Entry(source)])


def _read_list(source: str, listing: Listing) -> Iterator[Entry]:
    with opened(source, with_password(source, listing.passwords)) as stream:
        for number, line in _lines(source, stream):
            if line:
                yield Entry(_locate(line, source, listing), source, number)


def _lines(source: str, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    number = 0
    while line := stream.readline(4 * LONGEST_LINE + 1):
        number += 1
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{printable(source)}, line {number} is no text in UTF-8: save the list in UTF-8"
            ) from error
        if len(text) > LONGEST_LINE or "\0" in text:
            raise DataError(f"{printable(source)}, line {number} is no path: a list has one path or address a line")
        yield number, text


def _locate(text: str, listed_in: str, listing: Listing) -> str:
    """The path or address that a list or Parquet file names; a relative one is beside it."""
    if is_remote(text):
        return listing.keep_password(text)
    if is_remote(listed_in):
        return text if text.startswith("/") else f"{listed_in.rpartition('/')[0]}/{text}"
    return str(Path(listed_in).parent / text)


def _read_parquet(source: str, listing: Listing, column: str | None) -> Iterator[Entry]:
    with opened(source, with_password(source, listing.passwords)) as stream:
        taken = choose_column(source, stream, column)
        listing.columns[source] = taken
        if taken.holds_bytes:
            for row in range(taken.num_rows):
                yield Entry(f"{source}#{row}", source, row, taken.name)
            return
        for row, text in enumerate(read_texts(source, stream, taken)):
            if text:
                yield Entry(_locate(text, source, listing), source, row)
            else:
                yield Entry(f"{source}#{row}", source, row, problem=f"the column {taken.name} is empty")
