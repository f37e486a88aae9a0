"""Parquet files that name images, or hold them: a column is chosen, and read a few rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from pyrafuse.base.errors import DataError, nearest
from pyrafuse.base.folders import check_file
from pyrafuse.base.members import is_remote, reading
from pyrafuse.base.printable import list_names, printable
from pyrafuse.inference.tables import arrow

HOLDING = ("image", "image_bytes", "bytes", "jpg", "jpeg", "png", "content", "data", "img")
"""Names of columns that hold images, the first one first."""

NAMING = (
    "path", "image_path", "file", "file_path", "file_name", "filename", "image", "url", "image_url", "uri", "source",
)  # fmt: skip
"""Names of columns that name images."""

ROWS_AT_ONCE = 16
"""Images that are read at once; of names, a thousand times as many."""


@dataclass(frozen=True)
class Column:
    """The column that images are taken of.

    Attributes:
        name: Its name, ``image.bytes`` of a structure.
        holds_bytes: Whether it holds images; else it names them.
        num_rows: Rows of the file.
    """

    name: str
    holds_bytes: bool
    num_rows: int


@contextmanager
def opened(source: str, address: str) -> Iterator[IO[bytes]]:
    """The file ``source``, a path or an address, for reading.

    Args:
        source: Its name in messages.
        address: The same, with a password where it needs one.

    Raises:
        DataError: If it cannot be opened.
    """
    if is_remote(address):
        with reading(address) as (system, path), system.open(path, "rb") as stream:
            yield stream
        return
    check_file(source)
    try:
        with open(source, "rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(f"{printable(source)} cannot be read: {error.strerror or error}; check the path") from error


def choose_column(source: str, stream: IO[bytes], asked: str | None) -> Column:
    """The column ``asked`` for, or the first one whose name and type tell that it holds or names images.

    Raises:
        DataError: If the file is no Parquet, or there is no such column.
    """
    with _telling(source):
        file = arrow().parquet.ParquetFile(stream)
        kinds = {field.name: _kind(field.type) for field in file.schema_arrow}
        rows = file.metadata.num_rows
    if asked is not None:
        if asked not in kinds:
            hint = nearest(asked, kinds)
            raise DataError(
                f"{printable(source)} has no column {asked!r}{f'; did you mean {hint}?' if hint else ''}: it has "
                f"{list_names(kinds)}"
            )
        if not kinds[asked]:
            raise DataError(f"{printable(source)}: the column {asked} holds neither texts nor bytes; name another one")
        return _column(asked, kinds[asked], rows)
    lower = {name.lower(): name for name in reversed(list(kinds))}
    for names, wanted in ((HOLDING, {"bytes", "struct"}), (NAMING, {"text"})):
        for name in names:
            if (own := lower.get(name)) is not None and kinds[own] in wanted:
                return _column(own, kinds[own], rows)
    raise DataError(
        f"{printable(source)}: no column is known to hold images ({', '.join(HOLDING[:4])} ...) or to name them "
        f"({', '.join(NAMING[:4])} ...): give --column NAME, one of {list_names(kinds)}"
    )


def _column(name: str, kind: str, rows: int) -> Column:
    return Column(f"{name}.bytes" if kind == "struct" else name, kind != "text", rows)


def _kind(given: Any) -> str:
    types = arrow().types
    if types.is_dictionary(given):
        given = given.value_type
    if types.is_struct(given):
        names = [given.field(i).name for i in range(given.num_fields)]
        return "struct" if "bytes" in names and _kind(given.field("bytes").type) == "bytes" else ""
    if types.is_string(given) or types.is_large_string(given) or types.is_string_view(given):
        return "text"
    return "bytes" if types.is_binary(given) or types.is_large_binary(given) or types.is_binary_view(given) else ""


def read_texts(source: str, stream: IO[bytes], column: Column) -> Iterator[str]:
    """The text of each row; empty where there is none."""
    with _telling(source):
        file = arrow().parquet.ParquetFile(stream)
        for batch in file.iter_batches(batch_size=1000 * ROWS_AT_ONCE, columns=[column.name]):
            yield from (value or "" for value in batch.column(0).to_pylist())


def read_rows(source: str, stream: IO[bytes], column: str, rows: Sequence[int]) -> Iterator[bytes]:
    """The bytes in ``rows``, which ascend; empty where there are none.

    Only the groups of rows that hold them are read, a few rows at a time.
    """
    with _telling(source):
        file = arrow().parquet.ParquetFile(stream)
        wanted, first, groups, start = list(rows), 0, [], None
        for group in range(file.metadata.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            if first <= wanted[-1] and wanted[0] < after:
                start = first if start is None else start
                groups.append(group)
            first = after
        if start is None or wanted[-1] >= first:
            raise DataError(f"{printable(source)} has {first:,} rows, and no row {wanted[-1]}: it has been changed")
        chosen = set(wanted)
        number = start
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=groups, columns=[column]):
            values = batch.column(0)
            if arrow().types.is_struct(values.type):
                values = arrow().compute.struct_field(values, "bytes")
            for index in range(len(values)):
                if number in chosen:
                    yield values[index].as_py() or b""
                number += 1


@contextmanager
def _telling(source: str) -> Iterator[None]:
    """A block whose faults name ``source``."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, KeyError, MemoryError, RuntimeError) as error:  # pyarrow's errors are some of these
        reason = printable(str(error) or type(error).__name__, limit=300)
        raise DataError(f"{printable(source)} cannot be read as Parquet: {reason}; copy or write it anew") from error
