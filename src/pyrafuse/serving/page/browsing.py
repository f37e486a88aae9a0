"""A data set to look through: split, class, fault -> pictures with their boxes, and a table of faults."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.checks.checking import check
from pyrafuse.data.checks.report import Report
from pyrafuse.data.formats.layout import Splits, read_splits
from pyrafuse.reports.data_page import draw_record

PAGE = 12
"""Pictures at a time."""

ALL = "all"

MOST_FAULTS = 500
"""Rows of the table of faults."""


class DataBrowser:
    """A data set that is read when it is first looked at, and checked when that is asked for.

    Args:
        path: Path as the commands take it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._report: Report | None = None

    @cached_property
    def splits(self) -> Splits:
        """The data set.

        Raises:
            DataError: If it cannot be read.
        """
        return read_splits(self.path)

    @property
    def is_checked(self) -> bool:
        """Whether faults were looked for."""
        return self._report is not None

    @property
    def classes(self) -> list[str]:
        """`ALL`, and the names of the classes."""
        return [ALL, *self.splits.train.names]

    def check(self, progress: Callable[[int, int], None] | None = None) -> Report:
        """Every fault; the whole data set is decoded the first time."""
        if self._report is None:
            self._report = check(self.splits, progress=progress)
        return self._report

    def kinds(self) -> list[str]:
        """`ALL`, and the kinds of faults that were found, errors first."""
        found = self._report.problems if self._report else ()
        return [ALL, *dict.fromkeys(problem.kind for problem in found)]

    def faults(self, kind: str = ALL) -> list[list[str]]:
        """A row a fault of ``kind``: severity, kind, file, what was found and what to do."""
        found = self._report.problems if self._report else ()
        chosen = [problem for problem in found if kind in (ALL, problem.kind)][:MOST_FAULTS]
        return [
            [p.severity, p.kind, printable(p.file.name, limit=60), printable(p.message, limit=200), p.remedy]
            for p in chosen
        ]

    def choose(self, split: str, name: str = ALL, kind: str = ALL) -> list[ImageRecord]:
        """Images of ``split`` that hold an object of class ``name``, and of which a fault of ``kind`` is known."""
        data = self.splits.val if split == "val" else self.splits.train
        label = -1 if name == ALL else data.names.index(name)
        faulty = None if kind == ALL else self._faulty(kind)
        return [
            record
            for record in data.records
            if (label < 0 or (record.labels == label).any()) and (faulty is None or record.path in faulty)
        ]

    def page(self, records: list[ImageRecord], number: int) -> list[tuple[NDArray[np.uint8], str]]:
        """Page ``number``, from 1, of ``records``: pictures with boxes, and their captions."""
        shown = []
        for record in records[(number - 1) * PAGE : number * PAGE]:
            caption = f"{printable(record.path.name, limit=60)}: {counted(len(record.labels), 'object')}"
            try:
                shown.append((draw_record(record, self.splits.train.names), caption))
            except DataError:
                shown.append((np.full((64, 96, 3), 200, np.uint8), f"{caption}; cannot be read"))
        return shown

    def _faulty(self, kind: str) -> set[Path]:
        """Images that a fault of ``kind`` names by its file, its record or its message."""
        problems = [p for p in (self._report.problems if self._report else ()) if p.kind == kind]
        files = {p.file for p in problems}
        texts = [f"{p.record} {p.message}" for p in problems]
        records = (*self.splits.train.records, *self.splits.val.records)
        return {r.path for r in records if r.path in files or any(r.path.name in text for text in texts)}
