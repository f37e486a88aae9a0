"""One writer a folder of results: a lock that ends with its process, however that ends."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pyrafuse.base.errors import PyrafuseError

PART = ".part"
"""Ends the names of files that are being written."""

LOCK_FILE = ".pyrafuse.lock"
"""In the folder while it is held. A killed process leaves the file behind, and not the lock."""


@contextmanager
def hold_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Create ``folder`` and keep other processes from writing results to it until the block ends.

    Temporary files that a killed process left half-written in it are removed.

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
        raise PyrafuseError(
            f"{folder} is in use: another process writes its results there; wait until it ends, or choose another "
            "--output"
        ) from None
    except OSError as error:
        raise PyrafuseError(
            f"cannot write to {folder}: {error.strerror or error}; free space or choose another place"
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


def refuse_held(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that another process writes to now; nothing is created.

    Raises:
        PyrafuseError: As `hold_folder`.
    """
    if (Path(folder) / LOCK_FILE).is_file():
        with hold_folder(folder):
            pass


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in ``folder``, and one below, whose process was killed, and temporary folders.

    Their names are those of `write_atomically`.
    """
    for path in (*folder.glob(f".*{PART}"), *folder.glob(f"*/.*{PART}")):
        number = path.name.removesuffix(PART).rpartition(".")[2]
        if number.isdecimal() and not _is_running(int(number)):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


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
