"""Which files below a folder are those of one kind of results: a line a file, written before the file is.

So earlier results give way to new ones exactly, whatever ended either, and files of others are never touched.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import remove_leftovers
from pyrafuse.base.printable import printable
from pyrafuse.base.writing import write_atomically


class OwnFiles:
    """The files of results of one kind below ``folder``.

    As a context it removes, at the end, what earlier calls wrote and this one did not; not after an error, and not
    where this one wrote nothing.

    Args:
        folder: The folder, which this process holds.
        record: Name of the hidden file in it that lists them.
        kind: Word for the results, which errors name, such as ``prediction``.
    """

    def __init__(self, folder: Path, *, record: str, kind: str) -> None:
        self._folder = folder
        self._path = folder / record
        self._kind = kind
        self._earlier = _read(self._path)
        self._stream: BinaryIO | None = None
        self._begin = 0

    def check(self, name: str) -> None:
        """Refuse if the file ``name``, or one in the folder of that name, is not that of an earlier call.

        Raises:
            PyrafuseError: With the first one; hidden files are passed over.
        """
        top = self._folder / name
        places = [top] if os.path.lexists(top) and not top.is_dir() else []
        for folder, _, files in os.walk(top):
            places += [Path(folder, file) for file in files if not file.startswith(".")]
        if foreign := min((place for place in places if self._name(place) not in self._earlier), default=None):
            raise PyrafuseError(
                f"{printable(foreign)} is there already, and no earlier {self._kind} wrote it: choose another "
                "--output, or move it away"
            )

    def take(self, path: Path) -> bool:
        """Note that ``path`` is to be written; False if a file of this call, or of anybody else, lies there.

        Raises:
            PyrafuseError: If the note cannot be written.
        """
        name = self._name(path)
        if name not in self._earlier and os.path.lexists(path):
            return False
        self._note(name)
        return True

    def claim(self, path: Path) -> Path:
        """``path``, noted as a file of this call.

        Raises:
            PyrafuseError: If another file lies there.
        """
        if not self.take(path):
            raise PyrafuseError(f"{printable(path)} was written by another program meanwhile: choose another --output")
        return path

    def spare(self, source: str) -> None:
        """Keep the file ``source``, if an earlier call wrote it: it is an input of this one.

        Raises:
            PyrafuseError: If the note cannot be written.
        """
        path = Path(os.path.abspath(source))
        if self._earlier and path.is_relative_to(self._folder.absolute()):
            name = path.relative_to(self._folder.absolute()).as_posix()
            if name in self._earlier:
                self._note(name)

    def _note(self, name: str) -> None:
        try:
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._stream = self._path.open("ab", buffering=0)
                self._stream.write(b"\n")  # ends a line that was cut off
                self._begin = self._stream.tell()
            self._stream.write(json.dumps(name).encode() + b"\n")
        except OSError as error:
            raise PyrafuseError(
                f"cannot write {self._folder / name}: {error.strerror or error}; free space or choose another place"
            ) from error
        self._earlier.discard(name)

    def __enter__(self) -> Self:
        for folder in {(self._folder / name).parent for name in self._earlier}:
            if self._is_inside(folder):
                remove_leftovers(folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._stream is None:
            return
        self._stream.close()
        if error is None or isinstance(error, KeyboardInterrupt):
            self._forget_earlier()

    def _forget_earlier(self) -> None:
        for name in self._earlier:
            path = self._folder / name
            with suppress(OSError):
                if self._is_inside(path.parent):
                    path.unlink()
            for folder in path.relative_to(self._folder).parents[:-1]:
                with suppress(OSError):  # something is in it
                    (self._folder / folder).rmdir()
        with self._path.open("rb") as stream, write_atomically(self._path) as kept:
            stream.seek(self._begin)
            shutil.copyfileobj(stream, kept)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _is_inside(self, folder: Path) -> bool:
        """Whether no link leads out of the folder."""
        return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self._folder))


def _leads_inside(name: str) -> bool:
    return bool(name) and "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _read(path: Path) -> set[str]:
    """The names in a record; lines that were cut off, or lead elsewhere, name nothing."""
    names: set[str] = set()
    if not path.is_file():
        return names
    with path.open("rb") as stream:
        for line in stream:
            with suppress(ValueError, RecursionError):
                name = json.loads(line)
                if isinstance(name, str) and _leads_inside(name):
                    names.add(name)
    return names
