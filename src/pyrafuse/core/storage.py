"""Tensors in files: read without executing anything, written whole or not at all."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.foreign_files import find_kind
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.paths import find_checkpoint
from pyrafuse.base.pickled_names import Calls
from pyrafuse.base.pickles import UnreadableError
from pyrafuse.base.printable import list_names
from pyrafuse.base.writing import write_atomically
from pyrafuse.core.torch_files import read_torch_file


def write_tensors(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content``, of tensors and plain values, with `torch.save`, whole or not at all.

    Raises:
        PyrafuseError: If the file system refuses, a full disk included; whatever lay at ``path`` is still there.
    """
    # an interrupt in torch's writer would become an error of that writer
    with hold_interrupts(), write_atomically(path) as stream:
        output = _Output(stream)
        try:
            torch.save(content, output)  # type: ignore[arg-type]  # it asks for write and flush alone
        except RuntimeError:
            if output.error is None:
                raise
        if output.error is not None:
            raise output.error


class _Output:
    """A stream that remembers its first error: torch's zip writer tells of a position that it did not expect instead.

    Attributes:
        error: What the first write that failed said; none while all succeed.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.error: OSError | None = None
        self._stream = stream

    def write(self, data: Any) -> int:
        try:
            return self._stream.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._stream.flush()


def read_tensors(path: str | os.PathLike[str]) -> Any:
    """Read a ``.safetensors`` file or a ``torch.save`` file of tensors and plain values; nothing in it is executed.

    Objects of settings and logs come as mappings of their attributes, paths as texts, numpy's numbers as Python's own,
    its arrays as arrays; see `pickled_names`.

    Raises:
        CheckpointError: If the file is missing, is no checkpoint, is cut off, or holds anything else (those names are
            listed and never called).
    """
    path = find_checkpoint(path)
    calls = Calls()
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path, calls)
    except Exception as error:  # every reader has its own exceptions, down to struct.error and UnicodeDecodeError
        raise CheckpointError(_why_unreadable(path, error, calls.refused)) from error
    if calls.refused:
        raise CheckpointError(_why_unreadable(path, None, calls.refused))
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _why_unreadable(path: Path, error: Exception | None, refused: Collection[str]) -> str:
    size = path.stat().st_size
    if refused:
        return (
            f"{path} holds code or objects that are not loaded: {list_names(sorted(refused))}. Nothing was "
            "executed; save its state_dict alone, with torch.save or safetensors"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{path} cannot be read: {error.strerror}"
    if kind := find_kind(path):
        return f"{path} ({size:,} bytes) is no checkpoint that can be read: {kind}"
    if isinstance(error, UnreadableError):
        return (
            f"{path} ({size:,} bytes) is no checkpoint that can be read: it holds {error}. Nothing was executed; save "
            "its state_dict alone, with torch.save or safetensors"
        )
    return (
        f"{path} ({size:,} bytes) is no checkpoint that can be read, or is damaged; copy it anew, or save its "
        "state_dict with torch.save or safetensors"
    )
