"""Files in and out without surprises: tensors read without executing anything, files written whole or not at all."""

import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from pyrafuse.core.errors import CheckpointError, PyrafuseError
from pyrafuse.core.pickled_names import find_names, stand_in_for


@contextmanager
def write_atomically(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its name only when the block ends without an error.

    Raises:
        PyrafuseError: If the file system refuses, a full disk included; whatever lay at ``path`` is still there.
    """
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise PyrafuseError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with write_atomically(path, "w") as stream:
        stream.write(text)


def read_tensors(path: str | os.PathLike[str]) -> Any:
    """Read a ``.safetensors`` file or a ``torch.save`` file of tensors and plain values; nothing in it is executed.

    Settings and logs of mmdetection's files come as `OrderedDict`, numpy's values as they are.

    Raises:
        CheckpointError: If the file is missing, is no checkpoint, is cut off, or holds anything else (those names are
            listed and never called).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no such checkpoint: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        try:
            return _load(path)
        except pickle.UnpicklingError:
            stand_ins, _ = stand_in_for(find_names(path))
        with torch.serialization.safe_globals(stand_ins):
            return _load(path)
    except Exception as error:  # every reader has its own exceptions, down to struct.error and UnicodeDecodeError
        raise CheckpointError(_why_unreadable(path, error)) from error


def _load(path: Path) -> Any:
    # mapped, a large file costs memory only where it is looked at; the old format cannot be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _why_unreadable(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return f"{path} is empty"
    # torch's reader names the first one only, in its complaint
    refused = re.findall(r"GLOBAL ([\w.]+\w)", str(error))
    if path.suffix != ".safetensors" and isinstance(error, pickle.UnpicklingError):
        try:
            refused = stand_in_for(find_names(path))[1] or refused
        except Exception:  # damaged inside: what torch's reader names has to do
            refused = list(refused)
    if refused:
        return (
            f"{path} holds code or objects that are not loaded: {', '.join(sorted(set(refused)))}. Nothing was "
            "executed; save its state_dict alone, with torch.save or safetensors"
        )
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{path} is no checkpoint that can be read, or is damaged ({type(error).__name__}: {first_line})"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
