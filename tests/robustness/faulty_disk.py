"""A disk that is full from one step on, or read-only: every step that writes is counted, and fails from then on."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_STEPS = ("mkdir", "rename", "replace", "link", "symlink", "fsync", "chmod")


class Disk:
    """Counts the steps that write: a folder, a file or a name that is made, bytes that are written.

    Args:
        full_from: The step, from 1, that fails, and with it all that come after; 0 for none. Removing never fails.
        reason: Error number of the failure.
    """

    def __init__(self, full_from: int = 0, reason: int = errno.ENOSPC) -> None:
        self.steps = 0
        self._full_from = full_from
        self._reason = reason

    def step(self) -> None:
        """One more step."""
        self.steps += 1
        if 0 < self._full_from <= self.steps:
            raise OSError(self._reason, os.strerror(self._reason))

    @contextmanager
    def inserted(self) -> Iterator[None]:
        """Every file that Python writes meanwhile is on this disk."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _STEPS:
                patch.setattr(os, name, self._counting(getattr(os, name)))
            patch.setattr(os, "open", self._opening(os.open))
            patch.setattr(io, "open", self._streaming(io.open))
            patch.setattr(builtins, "open", io.open)
            yield

    def _counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.step()
            return function(*args, **options)

        return call

    def _opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, flags: int, *args: Any, **options: Any) -> Any:
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.step()
            return function(path, flags, *args, **options)

        return call

    def _streaming(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return function(file, mode, *args, **options)
            self.step()
            return _Stream(function(file, mode, *args, **options), self)

        return call


class _Stream:
    """A stream whose every write is a step of the disk."""

    def __init__(self, stream: Any, disk: Disk) -> None:
        self._stream = stream
        self._disk = disk

    def write(self, data: Any) -> int:
        self._disk.step()
        return self._stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
