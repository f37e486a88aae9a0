"""The classes and functions that a pickled file names, and harmless stand-ins for those of mmdetection's files.

mmdetection's checkpoints hold their settings as ``ConfigDict`` and their logs as ``HistoryBuffer``. file -> names, read
without building anything -> stand-ins for `torch.serialization.safe_globals`, and the names that there are none for
"""

import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar

StandIns = list[Callable[..., Any] | tuple[Callable[..., Any], str]]
"""(what is built instead, the name in the file), as `torch.serialization.safe_globals` takes them."""

PACKAGES = frozenset({"mmengine", "mmcv", "mmdet", "addict"})
"""Whatever these name is read as an `OrderedDict` of what was in it; torch's reader fills no subclass of `dict`."""

OLD_PICKLES = 4
"""The old format begins with so many pickles: its mark, its version, the machine, and what was saved."""

_OWN_NAMES = re.compile(
    r"torch\.(_utils\._rebuild\w+|\w+Storage|\w+Tensor|Size|device|[a-z]+\d+|nn\.parameter\.Parameter)"
    r"|_codecs\.encode|collections\.(OrderedDict|Counter)|builtins\.(set|bytearray|complex)"
)
"""What torch itself builds of the old format, where it has no list to ask for."""

_RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def find_names(path: Path) -> list[str]:
    """The names in a file of ``torch.save`` that torch itself does not build; nothing in the file is executed.

    Both formats are read. The file may be anything at all: what cannot be followed ends the list, or raises whatever
    exception the reader has for it.
    """
    if zipfile.is_zipfile(path):
        with suppress(pickle.UnpicklingError, ValueError):  # it follows only what torch.save writes by default
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    names: list[str] = []
    with _open_pickles(path) as stream:
        try:
            for _ in range(OLD_PICKLES):
                for name in _names_in_pickle(stream):
                    names.append(name)  # noqa: PERF402  # those before a fault count
                if not stream.peek(1):
                    break  # a pickle that is not of the old format is alone
        except Exception:
            if not names:
                raise
    return sorted({name for name in names if not _OWN_NAMES.fullmatch(name)})


def _open_pickles(path: Path) -> BufferedReader:
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return BufferedReader(BytesIO(archive.read(name)))  # type: ignore[arg-type]  # it is as good as a raw stream


def _names_in_pickle(stream: BinaryIO) -> Iterator[str]:
    """The names in the next pickle of ``stream``, of any protocol; from the fourth on they are two strings before."""
    last: str | None = None
    strings = ["", ""]
    memo: dict[int, str | None] = {}
    for code, argument, _position in pickletools.genops(stream):
        if code.name in {"GLOBAL", "INST"}:
            yield _join(*str(argument).split(" ", 1))
        elif code.name == "STACK_GLOBAL":
            yield _join(*strings)
        if code.name == "MEMOIZE":
            memo[len(memo)] = last
        elif code.name.endswith("PUT"):
            memo[int(argument or 0)] = last
        elif code.name not in {"FRAME", "PROTO"}:
            last = memo.get(int(argument or 0)) if code.name.endswith("GET") else argument
            last = last if isinstance(last, str) else None
            strings = [strings[1], last] if last is not None else strings


def _join(module: str, name: str) -> str:
    return f"{_RENAMED_MODULES.get(module, module)}.{name}"


def stand_in_for(names: Iterable[str]) -> tuple[StandIns, list[str]]:
    """Stand-ins for ``names``, and those of them that may not be read."""
    stand_ins: StandIns = list(_NUMPY)
    refused: list[str] = []
    for name in names:
        if name.partition(".")[0] in PACKAGES:
            stand_ins.append((OrderedDict, name))
        elif name == "builtins.getattr":
            stand_ins.append((_answer_none, name))
        elif name not in _NUMPY_NAMES:
            refused.append(name)
    return stand_ins, refused


def _answer_none(*_: Any) -> None:
    """In place of `getattr`, by which a ``HistoryBuffer`` names its own methods."""


def _list_numpy() -> list[tuple[Callable[..., Any], str]]:
    """Numpy's scalars and arrays, under the names of numpy 1 and 2."""
    pairs: list[tuple[Callable[..., Any], str]] = [(np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")]
    pairs += [(kind, f"numpy.dtypes.{name}") for name, kind in vars(np.dtypes).items() if isinstance(kind, type)]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        pairs += [(scalar, f"{module}.scalar"), (_reconstruct, f"{module}._reconstruct")]
    return pairs


_NUMPY = _list_numpy()
_NUMPY_NAMES = {name for _, name in _NUMPY}
