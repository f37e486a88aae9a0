"""JSON, XML and CSV of strangers: file -> plain values, with limits, and with an error that says where it is broken.

No document type and no entity is read, nothing nests without end, and no field of a table is endless.
"""

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from pyrafuse.base.errors import DataError
from pyrafuse.base.folders import check_file
from pyrafuse.base.printable import printable
from pyrafuse.base.spec import MOST_CLASSES
from pyrafuse.data.reading.folders import decode, read_text

MAX_JSON_BYTES = 8 << 30
MAX_XML_BYTES = 4 << 30
MAX_CSV_BYTES = 8 << 30
MAX_DEPTH = 100
"""So many elements may lie within one another; annotation files have about ten."""

_BLOCK = 1 << 20


def check_bytes(path: Path, most: int) -> None:
    """Refuse a file of more than ``most`` bytes before it is read.

    Raises:
        DataError: If it is larger, no file at all, or cannot be read.
    """
    check_file(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from error
    if size > most:
        raise DataError(f"{path} has {size:,} bytes, more than the {most:,} that are read; cut it into several files")


def read_json(path: Path, *, most: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: If it has more than ``most`` bytes, is cut off, is no text in UTF-8, nests too deep, or cannot be
            read.
    """
    check_bytes(path, most)
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        what = "is no complete JSON" if error.doc else "is empty"
        raise DataError(
            f"{path} {what}: {error.msg} at line {error.lineno}, column {error.colno} (character {error.pos:,} of "
            f"{len(error.doc):,}); copy or export it anew"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}; save it in UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path} nests lists or objects too deep, as no annotations do; export it anew") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise DataError(f"{path} holds a number that cannot be read: {error}; correct it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from error


def read_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line that is not empty, from 1 on, and the JSON in it.

    Raises:
        DataError: On the same faults as `read_json`, with the line.
    """
    check_bytes(path, MAX_JSON_BYTES)
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number} is no JSON: {error}; correct the line") from error


def parse_xml(content: bytes | str) -> ElementTree.Element:
    """The root of an XML document.

    Raises:
        ElementTree.ParseError: If it is cut off, declares a document type or entities, or nests deeper than
            `MAX_DEPTH`.
        ValueError: If it is in an encoding that expat does not know.
    """
    builder = _Builder()
    builder.feed(content, is_last=True)
    return builder.root


def read_xml_children(path: Path) -> Iterator[ElementTree.Element]:
    """The elements right below the root, one after the other: a file of any length needs the memory of one.

    Raises:
        DataError: If it has more than `MAX_XML_BYTES`, or `parse_xml` refuses it.
    """
    check_bytes(path, MAX_XML_BYTES)
    builder = _Builder()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                builder.feed(block)
                yield from builder.take_children()
            builder.feed(b"", is_last=True)
            yield from builder.take_children()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; make it readable") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is no complete XML: {error}; copy or export it anew") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{path} is in an encoding that cannot be read, save it in UTF-8: {error}") from error


class _Builder:
    """An element tree that grows as text comes in."""

    def __init__(self) -> None:
        self._tree = ElementTree.TreeBuilder()
        self._root: ElementTree.Element | None = None
        self._depth = 0
        self._num_whole = 0
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._tree.data
        self._parser.StartDoctypeDeclHandler = self._refuse

    @property
    def root(self) -> ElementTree.Element:
        assert self._root is not None
        return self._root

    def feed(self, content: bytes | str, *, is_last: bool = False) -> None:
        try:
            self._parser.Parse(content, is_last)
        except expat.ExpatError as error:
            raise ElementTree.ParseError(str(error)) from error

    def take_children(self) -> Iterator[ElementTree.Element]:
        """The children of the root that have ended, taken off it."""
        count, self._num_whole = self._num_whole, 0
        for _ in range(count):
            child = self.root[0]
            del self.root[0]
            yield child

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ElementTree.ParseError(f"more than {MAX_DEPTH} elements lie within one another")
        element = self._tree.start(tag, attributes)
        if self._root is None:
            self._root = element

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._num_whole += self._depth == 1
        self._tree.end(tag)

    def _refuse(self, *_: Any) -> None:
        raise ElementTree.ParseError("it declares a document type, which can hide anything; delete <!DOCTYPE ...>")


def read_table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with the number of its line; commas, semicolons or tabs between.

    Raises:
        DataError: If it has more than `MAX_CSV_BYTES`, a field has more than 131,072 letters, or it is no text in
            UTF-8.
    """
    check_bytes(path, MAX_CSV_BYTES)
    with io.StringIO(read_text(path), newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        delimiter = max(",;\t", key=head.count)
        rows = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
        try:
            for row in rows:
                if any(map(str.strip, row)):
                    yield rows.line_num, [field.strip() for field in row]
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num} is no row of a CSV file: {error}; correct it") from error


def read_head(path: Path, num_bytes: int = 1 << 14) -> str:
    """The beginning of a text, whatever stands in it; empty where it cannot be read."""
    try:
        check_file(path)
        with path.open("rb") as stream:
            return decode(stream.read(num_bytes), errors="replace")
    except (OSError, DataError):
        return ""


def read_ends(path: Path, num_head: int = 1 << 16, num_tail: int = 1 << 12) -> str:
    """The beginning and the end of a text with a line break between: some tools write a picture before all else."""
    try:
        check_file(path)
        with path.open("rb") as stream:
            head = stream.read(num_head)
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(end - num_tail, len(head)))
            return decode(head, errors="replace") + "\n" + stream.read().decode(errors="replace")
    except (OSError, DataError):
        return ""


def number_classes(count: int, path: Path) -> tuple[str, ...]:
    """Names of ``count`` classes that have none: their numbers.

    Raises:
        DataError: If there are more than `MOST_CLASSES`.
    """
    if count > MOST_CLASSES:
        given = printable(f"{count:,}", limit=40)
        raise DataError(
            f"{path} speaks of {given} classes and names none, and {MOST_CLASSES:,} are the most: correct the number, "
            "or list the names"
        )
    return tuple(map(str, range(count)))


def as_float(value: float) -> float:
    """The number as a float; infinite where a whole number is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def shorten(value: Any, *, most: int = 80) -> str:
    """``value`` as text for an error, its middle left out where it is long."""
    return printable(repr(value), limit=most)
