"""Numpy's arrays and numbers in pickles, made anew of bytes: numpy's own reading of pickles never sees a file.

what a pickle gives to ``numpy.dtype``, ``_reconstruct`` and ``scalar`` -> checked kind, shape, length -> array, number
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.pickles import Name, Thing, UnreadableError

_KIND = re.compile(r"([<>=|]?)(b1|\?|[iu][1248]|f[248]|c8|c16|[US][1-9]\d{0,5})")
"""Order of bytes, then kind; objects, records, times and sub-arrays are none of these."""

MOST_DIMENSIONS = 32


def make_array(thing: Thing) -> Any:
    """The array or number that ``thing`` stands for; numbers are Python's own.

    The state of a dtype tells the order of bytes, and nothing else of it is used.

    Raises:
        UnreadableError: If it is of a kind that is no plain number or text, or its bytes are more or fewer than needed.
    """
    args, state = thing.args, thing.state
    match thing.name.rpartition(".")[2], args, state:
        case "scalar", (kind, raw), None:
            return _array(kind, (), raw, order="C")[()].item()
        case "_frombuffer", (raw, kind, shape, order), None:
            return _array(kind, shape, raw, order=order)
        case "_reconstruct", (Name() as made, _, _), (_, shape, kind, is_fortran, raw):
            if made.text != "numpy.ndarray":
                raise UnreadableError(f"arrays of {made.text}, which are not read")
            return _array(kind, shape, raw, order="F" if is_fortran is True else "C")
        case "dtype", _, _:
            order, kind = _kind_of(thing)
            return f"{order}{kind}"
    raise UnreadableError("numpy's values in a form that is not read")


def _kind_of(kind: Any) -> tuple[str, str]:
    """Order of bytes, and the kind without it."""
    if not (isinstance(kind, Thing) and kind.name == "numpy.dtype" and kind.args):
        raise UnreadableError("numpy's values of a kind that is not told")
    text, state = kind.args[0], kind.state
    found = _KIND.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        shown = text if isinstance(text, str) and text.isprintable() and len(text) < 40 else type(text).__name__
        raise UnreadableError(f"numpy's values of kind {shown}, which are no plain numbers")
    order = found[1]
    if state is not None:
        if not (isinstance(state, tuple) and 5 <= len(state) <= 9 and state[1] in ("<", ">", "=", "|")):
            raise UnreadableError("numpy's values of a kind that is not told")
        if any(part is not None for part in state[2:5]):
            raise UnreadableError("numpy's records or sub-arrays, which are no plain numbers")
        order = state[1]
    return order.replace("=", "").replace("|", ""), found[2].replace("?", "b1")


def _array(kind: Any, shape: Any, raw: Any, *, order: Any) -> NDArray[Any]:
    byte_order, code = _kind_of(kind)
    if isinstance(raw, str):  # of Python 2
        raw = raw.encode()
    if not (isinstance(shape, tuple) and len(shape) <= MOST_DIMENSIONS and isinstance(raw, bytes)):
        raise UnreadableError("numpy's values without a shape or without bytes")
    if not all(isinstance(length, int) and 0 <= length < 2**31 for length in shape):
        raise UnreadableError("numpy's values of a shape that cannot be")
    itemsize = int(code[1:]) * (4 if code[0] == "U" else 1)
    if (needed := math.prod(shape) * itemsize) != len(raw):
        raise UnreadableError(f"numpy's values of shape {shape} in {len(raw)} bytes, which need {needed}")
    if order not in ("C", "F"):
        raise UnreadableError("numpy's values in an order that is not known")
    if code[0] == "U":
        values = _texts(raw, itemsize, "utf-32-be" if byte_order == ">" else "utf-32-le")
        return np.array(values, dtype=code).reshape(shape, order=order)
    if code[0] == "b":
        return (np.frombuffer(raw, np.uint8) != 0).reshape(shape, order=order)
    values = np.frombuffer(raw, np.dtype(f"{byte_order}{code}"))
    return values.astype(values.dtype.newbyteorder("=")).reshape(shape, order=order)


def _texts(raw: bytes, size: int, encoding: str) -> list[str]:
    try:
        return [raw[i : i + size].decode(encoding).rstrip("\0") for i in range(0, len(raw), size)]
    except UnicodeDecodeError as error:
        raise UnreadableError("numpy's texts with what is no character") from error
