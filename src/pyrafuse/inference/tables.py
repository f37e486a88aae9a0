"""Tables of predictions as Parquet files, which pandas, DuckDB, Polars and Spark read."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pyrafuse.base.extras import naming_extras
from pyrafuse.base.writing import write_atomically

DETECTIONS = {
    "image_id": "int64",
    "source": "string",
    "width": "int32",
    "height": "int32",
    "label": "int32",
    "name": "string",
    "score": "float32",
    "x1": "float32",
    "y1": "float32",
    "x2": "float32",
    "y2": "float32",
    "level": "int16",
}
"""Columns of the detections, a row each; boxes are xyxy in pixels of the image."""

IMAGES = {"image_id": "int64", "source": "string", "width": "int32", "height": "int32", "objects": "int32"}
"""Columns of the images that were predicted on, a row each."""

UNREADABLE = {"image_id": "int64", "source": "string", "reason": "string"}
"""Columns of the images that could not be read, a row each."""


def arrow() -> Any:
    """The library that reads and writes Parquet, with its module ``parquet``.

    Raises:
        MissingLibraryError: If it is not installed.
    """
    with naming_extras():
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    return pyarrow


def schema_of(columns: Mapping[str, str]) -> Any:
    """The schema of a table with ``columns``, of which each has a name and a type."""
    library = arrow()
    return library.schema([(name, library.type_for_alias(kind)) for name, kind in columns.items()])


def table_of(columns: Mapping[str, str], rows: Sequence[Sequence[object]]) -> Any:
    """A table of ``rows`` with ``columns``; what is no UTF-8 in names of files is escaped."""
    values = zip(*rows, strict=True) if rows else ([] for _ in columns)
    made = [
        [str(one).encode("utf-8", "backslashreplace").decode() for one in each] if kind == "string" else list(each)
        for each, kind in zip(values, columns.values(), strict=True)
    ]
    return arrow().table(made, schema=schema_of(columns))


def write_table(path: str | os.PathLike[str], columns: Mapping[str, str], rows: Sequence[Sequence[object]]) -> None:
    """Write ``rows`` as a Parquet file, whole or not at all.

    Raises:
        PyrafuseError: If the file cannot be written.
    """
    table = table_of(columns, rows)
    with write_atomically(path) as stream:
        arrow().parquet.write_table(table, stream)
