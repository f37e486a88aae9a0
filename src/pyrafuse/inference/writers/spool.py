"""Text that waits on the disk for its end, so that memory does not grow with it."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pyrafuse.base.errors import PyrafuseError

_BUFFER_BYTES = 1 << 16


class Spool:
    """Text in a file without a name, which ends with the process however that ends.

    Args:
        path: What the text is for; it lies on the same disk, and errors name it.

    Attributes:
        size: Bytes so far.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._file: IO[bytes] | None = None
        self._waiting = bytearray()

    def add(self, text: str) -> None:
        """Add ``text``.

        Raises:
            PyrafuseError: If the disk takes no more.
        """
        encoded = text.encode()
        self._waiting += encoded
        self.size += len(encoded)
        if len(self._waiting) >= _BUFFER_BYTES:
            self._flush()

    @contextmanager
    def read(self) -> Iterator[IO[bytes]]:
        """All that was added, from its beginning; it is gone after the block."""
        self._flush()
        assert self._file is not None
        self._file.seek(0)
        try:
            yield io.BufferedReader(self._file)  # pyright: ignore[reportArgumentType]  # it is a raw file
        finally:
            self.close()

    def close(self) -> None:
        """Forget all that was added."""
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        try:
            if self._file is None:
                # without a buffer: what a full disk refused must not be tried again when the file is closed
                self._file = tempfile.TemporaryFile(dir=self._path.parent, buffering=0)  # noqa: SIM115
            left = memoryview(bytes(self._waiting))
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.close()
            raise PyrafuseError(
                f"cannot write {self._path}: {error.strerror or error}; free space or choose another place"
            ) from error
        self._waiting.clear()
