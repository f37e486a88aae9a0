"""Files of ``torch.save``, in both formats, read without PyTorch's reader: tensors and plain values.

zip archive or the old row of pickles -> pickles -> storages, mapped from the file -> tensors within their bounds
"""

import math
import mmap
import re
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyrafuse.base.foreign_files import find_archive
from pyrafuse.base.pickled_names import Calls, to_plain
from pyrafuse.base.pickles import Name, Thing, UnreadableError, read_pickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""What the old format begins with."""

MOST_REPEATED = 2**26
"""Bytes that the tensors of a file may have beyond those that are stored, where values are repeated."""

_DTYPES: Mapping[str, torch.dtype] = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
_STORAGE = re.compile(r"torch\.(?:cuda\.)?(\w+)Storage")
_UNTYPED = "torch.storage.UntypedStorage"
_NAMED_DTYPES: Mapping[str, torch.dtype] = {
    **{str(dtype): dtype for dtype in _DTYPES.values()},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    },
}


@dataclass
class Storage:
    """A row of values in the file.

    Attributes:
        key: Key of the row.
        dtype: Kind of its values; bytes where the file does not tell.
        numel: How many there are.
        start: The first of them, where this is a part of a row.
    """

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0


@dataclass
class _Content:
    """The bytes of a file, and where in them each storage is."""

    data: mmap.mmap
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    is_swapped: bool = False
    rows: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)
    repeated: int = 0


def read_torch_file(path: Path, calls: Calls) -> Any:
    """The content of a file of ``torch.save``: tensors and plain values.

    Nothing in it is executed, imported or built but these. The file is mapped: it costs memory where it is looked at.

    Args:
        path: Path of a file with at least one byte.
        calls: Learns which calls were refused; where it was any, what is returned is of no use.

    Raises:
        UnreadableError: If it is no such file, asks for what is not read, or its tensors do not lie within it.
        Exception: Any other if it is damaged.
    """
    with path.open("rb") as file:
        content = _Content(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    if zipfile.is_zipfile(path):
        if find_archive(path):
            raise UnreadableError("another kind of archive")
        value = _read_archive(path, content, calls)
    elif content.data[:2] == b"PK":
        raise ValueError("an archive without its end")
    else:
        value = _read_row(content, calls)
    if calls.refused:
        return None
    return to_plain(value, lambda found: _tensor(found, content))


def _read_archive(path: Path, content: _Content, calls: Calls) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = sorted((name for name in entries if re.fullmatch(r"([^/]+/)?data\.pkl", name)), key=len)
        if not pickles:
            raise UnreadableError("a zip archive that torch.save has not written")
        folder = pickles[0].removesuffix("data.pkl")
        for name, info in entries.items():
            if name.startswith((f"{folder}data", f"{folder}byteorder")):
                content.places[name.removeprefix(folder)] = _place_of(info, content.data)
    if sum(size for _, size in content.places.values()) > len(content.data):
        raise UnreadableError("entries that lie on one another")
    first, size = content.places["data.pkl"]
    order, length = content.places.get("byteorder", (0, 0))
    content.is_swapped = content.data[order : order + length] not in (b"", sys.byteorder.encode())
    content.places = {k.removeprefix("data/"): v for k, v in content.places.items() if k.startswith("data/")}
    stream = _Window(content.data, first, size)
    return read_pickle(stream, call=calls, find=_find)


def _place_of(info: zipfile.ZipInfo, data: mmap.mmap) -> tuple[int, int]:
    """Where the content of an entry begins, and how long it is."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UnreadableError("compressed or encrypted entries; pack its folder again with zip -0")
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise UnreadableError("entries that are not where its directory says")
    name, extra = struct.unpack("<HH", header[26:])
    begin = info.header_offset + 30 + name + extra
    if info.file_size != info.compress_size or begin + info.file_size > len(data):
        raise UnreadableError("entries that are not where its directory says")
    return begin, info.file_size


class _Window:
    """A stream of a part of a mapped file."""

    def __init__(self, data: mmap.mmap, begin: int, size: int) -> None:
        self._data = data
        self._end = begin + size
        self._data.seek(begin)

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._end - self._data.tell())
        return self._data.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._data.tell(), self._end)
        return self.read(-1 if end < 0 else end + 1 - self._data.tell())

    def tell(self) -> int:
        return self._data.tell()


def _read_row(content: _Content, calls: Calls) -> Any:
    """The old format: its mark, its version, the machine, what was saved, the keys of storages, the storages."""
    stream = _Window(content.data, 0, len(content.data))
    storages: dict[str, Storage] = {}

    def find(reference: Any) -> Any:
        storage = _find(reference)
        if not isinstance(storage, Storage):
            return storage
        whole = storages.setdefault(storage.key, storage)
        if whole.dtype is not storage.dtype:
            raise UnreadableError("storages of two kinds in one place")
        return storage

    def take() -> Any:
        return read_pickle(stream, call=calls, find=find)

    mark = take()
    if mark != MAGIC_NUMBER:
        raise UnreadableError("a pickle that torch.save has not written")
    version, machine = take(), take()
    if version != 1001 or not isinstance(machine, dict) or not machine.get("little_endian", True):
        raise UnreadableError("a version of the old format that is not known")
    value, keys = take(), take()
    for key in keys if isinstance(keys, list) and not calls.refused else ():
        length = struct.unpack("<q", stream.read(8))[0] * storages[str(key)].dtype.itemsize
        begin = stream.tell()
        if not 0 <= length <= len(content.data) - begin:
            raise UnreadableError("storages that end behind the file")
        content.places[str(key)] = begin, length
        content.data.seek(begin + length)
    return value


def _find(reference: Any) -> Any:
    """The storage that a pickle refers to as ``("storage", type, key, device, count)``, in the old format with a part.

    The old format also refers to classes of modules, with their source.

    Raises:
        UnreadableError: If it refers to anything else.
    """
    match reference:
        case ("module" | b"module", Name() as name, *_):
            return name
        case ("storage" | b"storage", Name() as kind, str() | int() as key, _, int() as numel, *rest):
            found = _STORAGE.fullmatch(kind.text)
            dtype = torch.uint8 if kind.text == _UNTYPED else _DTYPES.get(found[1]) if found else None
            if dtype is not None and numel >= 0:
                match rest:
                    case [] | [None]:
                        return Storage(str(key), dtype, numel)
                    case [(_, int() as start, int() as count)] if 0 <= start <= start + count <= numel:
                        return Storage(str(key), dtype, count, start)
            raise UnreadableError(f"storages of {kind.text}, or of a size that cannot be")
    raise UnreadableError("references to what is no storage")


def _tensor(thing: Thing | Storage, content: _Content) -> Tensor:
    """A storage, or what stands in a pickle as one of ``torch._utils._rebuild_tensor``, ``_v2`` and ``_v3``."""
    if isinstance(thing, Storage):
        return _row(thing, thing.dtype, content)
    match thing.args:
        case (Storage() as storage, int() as offset, tuple() as size, tuple() as stride, *rest):
            pass
        case _:
            raise UnreadableError("tensors in a form that is not read")
    dtype = storage.dtype
    if thing.name.endswith("_v3"):
        told = rest[2] if len(rest) > 2 else None
        found = _NAMED_DTYPES.get(told.text) if isinstance(told, Name) else None
        if found is None:
            raise UnreadableError("tensors of a kind that is not read")
        rest.pop(2)
        dtype = found
    if len(rest) > 2 and rest[2]:
        raise UnreadableError("tensors that are stored conjugate or negative")
    lengths = (*size, *stride, offset)
    if not all(isinstance(n, int) and 0 <= n < 2**48 for n in lengths) or len(size) != len(stride) or len(size) > 64:
        raise UnreadableError("tensors of a shape that cannot be")
    row = _row(storage, dtype, content)
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if count and last >= len(row):
        raise UnreadableError(f"tensors of shape {size} that lie outside what is stored")
    content.repeated += max(0, count - len(row)) * dtype.itemsize
    if content.repeated > MOST_REPEATED:
        raise UnreadableError("tensors that are far larger than what is stored of them")
    return row.as_strided(size, stride, row.storage_offset() + offset) if count else row.new_empty(size)


def _row(storage: Storage, dtype: torch.dtype, content: _Content) -> Tensor:
    """All values of a storage, as one row."""
    if storage.key not in content.places:
        raise UnreadableError("tensors without what is stored of them")
    begin, size = content.places[storage.key]
    itemsize, first = storage.dtype.itemsize, storage.start * storage.dtype.itemsize
    length = storage.numel * itemsize
    if first + length > size or length % dtype.itemsize or first % dtype.itemsize:
        raise UnreadableError("storages that end behind their place in the file")
    key = storage.key, dtype
    if key not in content.rows:
        content.rows[key] = _values(begin, size - size % dtype.itemsize, dtype, content)
    step = dtype.itemsize
    return content.rows[key][first // step : (first + length) // step]


def _values(begin: int, size: int, dtype: torch.dtype, content: _Content) -> Tensor:
    if not size:
        return torch.empty(0, dtype=dtype)
    is_apart = begin % 16 or content.is_swapped  # numbers are read fast where they lie as memory has them
    source = bytearray(content.data[begin : begin + size]) if is_apart else content.data
    values = torch.frombuffer(source, dtype=torch.uint8, count=size, offset=0 if is_apart else begin)
    if content.is_swapped:
        step = dtype.itemsize // (2 if dtype.is_complex else 1)
        values = values.view(-1, step).flip(1).flatten()
    return values != 0 if dtype is torch.bool else values.view(dtype)  # a truth of another byte is none
