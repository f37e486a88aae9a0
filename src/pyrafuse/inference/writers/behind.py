"""Findings written by a thread of their own while the detector works on the next image."""

from collections.abc import Sequence
from queue import Queue
from threading import Thread
from typing import Self

from pyrafuse.inference.writers.registry import Finding, Writer

DEPTH = 4
"""So many findings wait to be written; with their images they take memory."""


class WritingBehind:
    """Gives each finding to all writers, in order; as a context it ends when all are written.

    An error of a writer is raised by the next `write`, or at the end; nothing is written after it.
    """

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers
        self._waiting: Queue[Finding | None] = Queue(DEPTH)
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="write behind", daemon=True)

    def _run(self) -> None:
        while (finding := self._waiting.get()) is not None:
            try:
                if self._error is None:
                    for writer in self._writers:
                        writer.write(finding)
            except BaseException as error:  # raised again where the findings come from
                self._error = error

    def write(self, finding: Finding) -> None:
        """Have ``finding`` written; waits while too many are."""
        if self._error is not None:
            raise self._error
        self._waiting.put(finding)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None and self._error is not error:
            raise self._error
