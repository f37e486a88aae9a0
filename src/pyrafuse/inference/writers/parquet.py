"""Predictions as a table: one row a detection, in Parquet."""

import shutil
import tempfile
from contextlib import suppress
from typing import IO, Any

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.writing import write_atomically
from pyrafuse.inference.tables import DETECTIONS, arrow, schema_of, table_of
from pyrafuse.inference.writers.registry import WRITERS, Destination, Finding, Writer

GROUP_ROWS = 50_000
"""Rows that are written at once."""


@WRITERS.register("parquet")
class ParquetWriter(Writer):
    """Writes ``detections.parquet``, a row a detection with the columns of `DETECTIONS`."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._path = destination.file("detections.parquet")
        self._schema = schema_of(DETECTIONS)  # now, so that a library that is missing is told before the work
        self._rows: list[tuple[object, ...]] = []
        self._num_findings = 0
        self._file: IO[bytes] | None = None
        self._table: Any = None

    def write(self, finding: Finding) -> None:
        found = finding.detections
        height, width = found.image_size
        columns = (found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), found.levels.tolist())
        self._rows += [
            (finding.index, found.source, width, height, label, found.name_of(label), score, *box, level)
            for label, score, box, level in zip(*columns, strict=True)
        ]
        self._num_findings += 1
        if len(self._rows) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if not self._num_findings:
            return
        try:
            self._flush(is_last=True)
            assert self._file is not None
            self._file.seek(0)
            with write_atomically(self._destination.claim(self._path)) as stream:
                shutil.copyfileobj(self._file, stream)
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was found."""
        if self._file is not None:
            with suppress(OSError):  # it writes an end to what is dropped
                self._table.close()
            self._file.close()

    def _flush(self, *, is_last: bool = False) -> None:
        try:
            if self._file is None:
                # without a buffer: what a full disk refused must not be tried again when the file is closed
                self._file = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)  # noqa: SIM115
                self._table = arrow().parquet.ParquetWriter(self._file, self._schema)
            self._table.write_table(table_of(DETECTIONS, self._rows))
            if is_last:
                self._table.close()
        except OSError as error:
            raise PyrafuseError(
                f"cannot write {self._path}: {error.strerror or error}; free space or choose another place"
            ) from error
        self._rows.clear()
