"""One writer a folder of results: a lock that ends with its process, however that ends."""

import os
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pyrafuse.base.errors import PyrafuseError

PART = ".part"
"""Ends the names of files that are being written."""

LOCK_FILE = ".pyrafuse.lock"
"""In the folder while it is held. A killed process leaves the file behind, and not the lock."""

_MADE = "made"

_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"

_LEFT_AFTER_S = 86400.0
"""Seconds for which a temporary file of another machine must not have changed to count as left behind."""


class HeldError(PyrafuseError):
    """A folder that another process writes to."""


@contextmanager
def hold_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder on the disk of ``path`` for what is to become ``path``; this process alone writes it.

    It lies in a hidden one beside ``path``, ``.NAME.part``, which is gone after the block. What a killed process left
    there is removed first.

    Raises:
        PyrafuseError: If another process writes ``path`` now, or the file system refuses.
    """
    path = Path(path)
    try:
        with hold_folder(path.parent / f".{path.name}{PART}", of=path) as hidden:
            try:
                shutil.rmtree(hidden / _MADE, ignore_errors=True)
                (hidden / _MADE).mkdir()
                yield hidden / _MADE
            finally:
                shutil.rmtree(hidden, ignore_errors=True)  # the lock's file too, while the lock is held
    except OSError as error:
        raise PyrafuseError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error


@contextmanager
def hold_folder(folder: str | os.PathLike[str], *, of: Path | None = None) -> Iterator[Path]:
    """Create ``folder`` and keep other processes from writing results to it until the block ends.

    Temporary files that a killed process left half-written in it are removed.

    Args:
        folder: The folder.
        of: What it is held for, which errors name; the folder itself by default.

    Raises:
        PyrafuseError: If another process holds it, or it cannot be created.
    """
    folder = Path(folder)
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise HeldError(
            f"{of or folder} is in use: another process writes its results there; wait until it ends, or choose "
            "another --output"
        ) from None
    except OSError as error:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise PyrafuseError(
            f"cannot write to {of or folder}: {error.strerror or error}; free space or choose another place"
        ) from error
    try:
        remove_leftovers(folder)
        yield folder
    finally:
        # while it is still held: whoever waits for this very file sees that it is gone, and makes a new one
        with suppress(OSError):
            (folder / LOCK_FILE).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # something was written
                folder.rmdir()


def is_held(folder: str | os.PathLike[str]) -> bool:
    """Whether another process writes results to ``folder`` now; nothing is created."""
    try:
        refuse_held(folder)
    except HeldError:
        return True
    except PyrafuseError:
        pass  # whoever writes there is told why it cannot be written to
    return False


def refuse_held(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that another process writes to now; nothing is created.

    Raises:
        PyrafuseError: On the same faults as `hold_folder`.
    """
    if (Path(folder) / LOCK_FILE).is_file():
        with hold_folder(folder):
            pass


def part_suffix() -> str:
    """The end of a name for a temporary file of this process, ``.HOST-NUMBER.part``."""
    return f".{_HOST}-{os.getpid()}{PART}"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in ``folder``, and one below, whose process was killed, and temporary folders.

    Their names end in a `part_suffix`. Whether a process of another machine still runs cannot be seen from here: its
    files are left behind once they have not changed for a day.
    """
    for path in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
        host, _, number = path.name.removesuffix(PART).rpartition(".")[2].rpartition("-")
        with suppress(OSError):
            if number.isdecimal() and _is_left(path, host, int(number)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_left(path: Path, host: str, process: int) -> bool:
    """Whether nobody writes ``path`` any more."""
    if host in ("", _HOST):
        return not _is_running(process)
    changed = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    return time.time() - changed > _LEFT_AFTER_S


def _is_running(process: int) -> bool:
    """Whether another process of this machine has the number ``process``."""
    if process == os.getpid():
        return False  # an earlier one: in a container the same number comes back
    if os.name == "nt":
        return True  # the call below would end it there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
