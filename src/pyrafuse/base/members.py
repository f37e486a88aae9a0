"""Images that lie within a tar file: ``SHARD.tar/OFFSET-SIZE-CRC/NAME`` -> the bytes of one; any other path is a file.

The path says all that reading one needs, so that no index travels with it: from a process to another, into a message. A
shard that is not here is fetched from the address in `ADDRESS_FILE` beside its place, a range of bytes at a time.
"""

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.extras import MissingLibraryError, require
from pyrafuse.base.printable import printable

ADDRESS_FILE = "shards.address"
"""Holds the address of the folder that a folder of the cache stands for."""

_PLACE = re.compile(r"(\d{1,18})-(\d{1,12})-([0-9a-f]{8})")


@dataclass(frozen=True)
class Member:
    """Where an image lies.

    Attributes:
        shard: The tar file.
        start: Offset of its first byte.
        size: Number of its bytes.
        crc: CRC-32 of them.
    """

    shard: Path
    start: int
    size: int
    crc: int

    def path(self, name: str) -> Path:
        """The path that stands for it; ``name`` is the image's own file name."""
        return self.shard / f"{self.start}-{self.size}-{self.crc:08x}" / name


def find_member(path: str | os.PathLike[str]) -> Member | None:
    """The member of a shard that ``path`` stands for; None if it stands for a file of its own."""
    place = Path(path).parent
    if place.parent.suffix != ".tar" or (numbers := _PLACE.fullmatch(place.name)) is None:
        return None
    return Member(place.parent, int(numbers[1]), int(numbers[2]), int(numbers[3], 16))


def folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder of a file, or of the shard that it lies in."""
    member = find_member(path)
    return Path(path).parent if member is None else member.shard.parent


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, or of a member of a shard, whose checksum is compared.

    Raises:
        DataError: If a shard cannot be read, is too short, or holds other bytes than its index says.
        OSError: If a file of its own cannot be read.
    """
    member = find_member(path)
    if member is None:
        return Path(path).read_bytes()
    content = _read_member(member)
    if len(content) != member.size:
        reason = f"gave {len(content):,} bytes of {member.size:,} from byte {member.start:,} on: it is cut off"
    elif zlib.crc32(content) != member.crc:
        reason = f"holds other bytes than its index says, from byte {member.start:,} on"
    else:
        return content
    raise DataError(f"{printable(path)}: {printable(member.shard)} {reason}; copy the shard anew, or write it again")


def size_of(path: str | os.PathLike[str]) -> int:
    """Number of bytes of a file, or of a member of a shard.

    Raises:
        OSError: If a file of its own is not there.
    """
    member = find_member(path)
    return os.stat(path).st_size if member is None else member.size


def is_remote(text: str) -> bool:
    """Whether ``text`` is an address such as ``s3://bucket/folder`` and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def split_password(address: str) -> tuple[str, str]:
    """``address`` without user and password, and these: ``s3://USER:PASSWORD@bucket/a.jpg``; of a path, nothing."""
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        return address, ""
    host, slash, path = rest.partition("/")
    password, _, name = host.rpartition("@")
    return f"{scheme}://{name}{slash}{path}", password


def fetch(address: str, *, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes from ``start`` to ``end`` of the file at ``address``, by fsspec.

    Raises:
        DataError: If it cannot be read; the message holds no password.
        MissingLibraryError: If fsspec, or what it needs for such an address, is not installed.
    """
    with reading(address) as (system, path):
        return system.cat_file(path, start=start, end=end)


@contextmanager
def reading(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of ``address``, by fsspec, and the path there, for a block that reads.

    Raises:
        DataError: If the block cannot read; the message holds no password.
        MissingLibraryError: If fsspec, or what it needs for such an address, is not installed.
    """
    require("fsspec")
    core: Any = import_module("fsspec.core")
    try:
        yield core.url_to_fs(address)
    except PyrafuseError:
        raise
    except ImportError as error:
        scheme = address.partition("://")[0]
        raise MissingLibraryError(f"{scheme}:// needs another library: {printable(error, limit=300)}") from error
    except Exception as error:  # each file system has its own
        raise _unreadable(address, error) from error


def _unreadable(address: str, error: Exception) -> DataError:
    shown, password = split_password(address)
    reason = str(error) or type(error).__name__
    for part in (password, password.partition(":")[2]):
        reason = reason.replace(part, "***") if len(part) > 3 else reason
    return DataError(
        f"{printable(shown)} cannot be read: {printable(reason, limit=300)}; check the address, the rights and the "
        "connection"
    )


def _read_member(member: Member) -> bytes:
    end = member.start + member.size
    try:
        with member.shard.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size < end:  # no memory is taken for what is not there
                return b""
            stream.seek(member.start)
            return stream.read(member.size)
    except FileNotFoundError as error:
        if (note := member.shard.with_name(ADDRESS_FILE)).is_file():
            address = note.read_text(encoding="utf-8")
            return fetch(f"{address.rstrip('/')}/{member.shard.name}", start=member.start, end=end)
        raise DataError(f"no such shard: {printable(member.shard)}; copy it beside its index") from error
    except OSError as error:
        raise DataError(f"{printable(member.shard)} cannot be read: {error.strerror or error}") from error
