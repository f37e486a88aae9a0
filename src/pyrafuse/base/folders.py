"""The files below a folder, and the folder of what is made once and kept."""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrafuse.base.errors import DataError

MAX_FILES = 3_000_000


def cache_folder() -> Path:
    """The folder of what can be made anew: $PYRAFUSE_CACHE, else pyrafuse/ in $XDG_CACHE_HOME or ~/.cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pyrafuse")
    return Path(os.environ.get("PYRAFUSE_CACHE") or caches)


def list_files(root: Path, *, kind_of: Callable[[Path], str] = lambda _: "") -> tuple[Path, ...]:
    """List every file below ``root`` in sorted order, hidden ones apart.

    A link to a folder is followed once for each kind that ``kind_of`` gives its path, a split for instance; one without
    a kind only if the folder is new. A link to a folder that holds ``root`` is not followed.

    Raises:
        DataError: If there are more than `MAX_FILES`, a folder cannot be read, or something in it is no file at all.
    """
    found: list[str] = []
    for folder, names in _walk(root, kind_of):
        found.extend(os.path.join(folder, name) for name in names)
        if len(found) > MAX_FILES:
            raise DataError(
                f"{root} holds more than {MAX_FILES:,} files; name the data set's own folder, or its annotation file"
            )
    return tuple(map(Path, sorted(found)))  # to compare texts is far quicker than to compare paths


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what would be read without end, or waited for: a named pipe, a socket, a device; a link to one as well.

    Raises:
        DataError: With what it is. What is not there is none of them.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if kind := kinds.get(stat.S_IFMT(mode)):
        raise DataError(f"{os.fspath(path)} is {kind}, and no file; copy what it gives into a file, or remove it")


def _walk(root: Path, kind_of: Callable[[Path], str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder and the names of its files. Links wait until all else was walked: they lead to what may have been."""
    top = os.path.realpath(root)
    seen: dict[str, set[str]] = {}
    folders, links = [os.fspath(root)], deque[str]()
    while folders or links:
        is_link = not folders
        folder = folders.pop() if folders else links.popleft()
        real = os.path.realpath(folder)
        kind, known = kind_of(Path(folder)), seen.setdefault(real, set())
        if (known and (not kind or kind in known)) or (is_link and Path(top).is_relative_to(real)):
            continue
        known.add(kind)
        names = []
        try:
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if not entry.is_dir():
                        if not entry.is_file():
                            check_file(entry.path)
                        names.append(entry.name)
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        folders.append(entry.path)
        except OSError as error:
            raise DataError(f"{folder} cannot be read: {error.strerror}; make it readable or remove it") from error
        yield folder, names
