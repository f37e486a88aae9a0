"""What stands for the classes and functions that checkpoints name: plain values in their places, or a refusal.

name, arguments -> inert value -> `to_plain` -> plain value, array or tensor
"""

import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from pyrafuse.base.pickled_arrays import make_array
from pyrafuse.base.pickles import Name, Thing, UnreadableError, check_key

PLAIN_CLASSES = frozenset(
    {
        "argparse.Namespace",
        "builtins.object",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "decimal.Decimal",
        "functools.partial",
        "re._compile",
        "types.SimpleNamespace",
        "uuid.UUID",
        "zoneinfo.ZoneInfo._unpickle",
    }
)
"""Python's own classes that only hold values; what else of its own a file would call is refused."""

DEEPEST = 200
"""Values within values."""

MOST_VALUES = 10_000_000
"""What a file may unfold to, counting what is in several places in each of them."""

_PATH = re.compile(r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path")
_NUMPY = re.compile(r"numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.dtype")
_TENSOR = re.compile(r"torch\._utils\._rebuild_(tensor(_v[23])?|parameter(_with_state)?)")
_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"


class Calls:
    """Answers the calls of pickles, and keeps the names of those that it refuses.

    Attributes:
        refused: These names; what was put in their places is of no use.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def __call__(self, name: str, args: tuple[Any, ...], *, is_new: bool) -> Any:
        """As `pickles.Calls` says.

        Raises:
            UnreadableError: If the arguments of what is known here are others than they should be.
        """
        known = _KNOWN.get(name)
        if known is not None:
            try:
                return known(*args)
            except (TypeError, ValueError, OverflowError, LookupError) as error:
                raise UnreadableError(f"values of {name} that cannot be") from error
        if name == _WITH_ATTRIBUTES and len(args) == 4 and isinstance(args[0], Name) and isinstance(args[2], tuple):
            return self(args[0].text, args[2], is_new=False)
        is_known = _NUMPY.fullmatch(name) or _TENSOR.fullmatch(name) or _PATH.fullmatch(name)
        if not (is_known or _is_plain_class(name, is_new=is_new)):
            self.refused.add(name)
        return Thing(name, args)


def _is_plain_class(name: str, *, is_new: bool) -> bool:
    """Whether ``name`` is a class, as far as can be told, and none of those of Python that do something."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return name in PLAIN_CLASSES
    return is_new or name.rpartition(".")[2].lstrip("_")[:1].isupper()


def _attribute(target: Any, name: str) -> Name:
    """In place of `getattr`, by which nested classes, members of enumerations and methods are named."""
    if not isinstance(name, str):
        raise TypeError
    return Name(f"{target.text}.{name}" if isinstance(target, Name) else name)


def _encode(text: str, encoding: str) -> bytes:
    """In place of `codecs.encode`, by which old pickles have bytes."""
    if encoding not in {"latin1", "latin-1"}:
        raise ValueError(encoding)
    return text.encode("latin-1")


def _bytes(content: str | bytes | Sequence[int] = b"", encoding: str = "latin-1") -> bytes:
    if isinstance(content, str):
        return _encode(content, encoding)
    if isinstance(content, bytes | list):
        return bytes(content)
    raise TypeError


def _set(values: Sequence[Any] = ()) -> set[Any]:
    return {check_key(value) for value in _listed(values)}


def _listed(values: Any) -> Any:
    if not isinstance(values, list | tuple | set | frozenset):
        raise TypeError
    return values


def _ordered(values: Any = ()) -> OrderedDict[Any, Any]:
    pairs = values.items() if isinstance(values, dict) else _listed(values)
    return OrderedDict((check_key(key), value) for key, value in pairs)


def _dict(values: Any = ()) -> dict[Any, Any]:
    return dict(_ordered(values))


def _deque(values: Any = (), _most: int | None = None) -> list[Any]:
    return list(_listed(values))


def _range(*ends: int) -> str:
    return str(range(*ends))


def _slice(*ends: int | None) -> str:
    if not all(end is None or isinstance(end, int) for end in ends):
        raise TypeError
    return str(slice(*ends))


def _complex(real: float, imaginary: float = 0.0) -> complex:
    return complex(float(real), float(imaginary))


def _size(lengths: Any = ()) -> tuple[int, ...]:
    if not all(isinstance(length, int) for length in _listed(lengths)):
        raise TypeError
    return tuple(lengths)


def _device(kind: str, index: int | None = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise TypeError
    return kind if index is None else f"{kind}:{index}"


def _layout(name: str) -> str:
    return name


def _date(packed: bytes | int, *rest: int) -> str:
    return date(*(_year_of(packed) if isinstance(packed, bytes) else (packed, *rest))).isoformat()


def _datetime(packed: bytes | int, *rest: Any) -> str:
    if not isinstance(packed, bytes):
        return datetime(packed, *rest).isoformat()  # as the file has it
    year, month, day = _year_of(packed[:4])
    hour, minute, second = packed[4:7]
    told = datetime(year, month & 127, day, hour, minute, second, int.from_bytes(packed[7:10]))
    return told.isoformat()


def _year_of(packed: bytes) -> tuple[int, int, int]:
    high, low, month, day = packed
    return 256 * high + low, month, day


_KNOWN: Mapping[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.dict": _dict,
    "builtins.frozenset": _set,
    "builtins.getattr": _attribute,
    "builtins.list": _deque,
    "builtins.range": _range,
    "builtins.set": _set,
    "builtins.slice": _slice,
    "builtins.xrange": _range,  # as pickles for Python 2 have it
    "builtins.tuple": lambda values=(): tuple(_listed(values)),
    "collections.Counter": _dict,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda _factory=None, values=(): _dict(values),
    "collections.deque": _deque,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
}


def to_plain(value: Any, tensor: Callable[[Any], Any]) -> Any:
    """``value``, as `read_pickle` gives it, with plain values in place of every `Name` and `Thing`.

    An object becomes a mapping of its attributes, or of its entries, or the one value that it is made of; a pickled
    module becomes its state dict. What holds itself is None at the inner place.

    Args:
        value: Value that a pickle holds.
        tensor: Makes a tensor of the `Thing` that stands for it, or of a reference that was found.

    Raises:
        UnreadableError: If it is nested deeper than `DEEPEST`, unfolds to more than `MOST_VALUES`, or holds arrays or
            tensors that cannot be.
    """
    return _Unfolding(tensor).of(value)[0]


class _Unfolding:
    """Each object is unfolded once, and counted wherever it is."""

    def __init__(self, tensor: Callable[[Any], Any]) -> None:
        self._tensor = tensor
        self._done: dict[int, tuple[Any, int, Any]] = {}  # with the object itself, or its id could be another's
        self._begun: set[int] = set()
        self._depth = 0

    def of(self, value: Any) -> tuple[Any, int]:
        """The plain value, and how many it holds."""
        if isinstance(value, Name):
            return value.text, 1
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value, 1
        if not isinstance(value, Thing | dict | list | tuple | set | frozenset):
            return self._tensor(value), 1
        key = id(value)
        if key in self._done:
            return self._done[key][:2]
        if key in self._begun:
            return None, 1
        if self._depth >= DEEPEST:
            raise UnreadableError(f"values nested more than {DEEPEST} deep")
        self._begun.add(key)
        self._depth += 1
        plain, count = self._of_thing(value) if isinstance(value, Thing) else self._of_container(value)
        self._depth -= 1
        self._begun.discard(key)
        if count > MOST_VALUES:
            raise UnreadableError(f"values that unfold to more than {MOST_VALUES:,}")
        self._done[key] = plain, count, value
        return plain, count

    def _of_container(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, dict):
            pairs = [(self._key(key), self.of(inner)) for key, inner in value.items()]
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            return kind((key, inner) for key, (inner, _) in pairs), 1 + sum(count for _, (_, count) in pairs)
        parts = [self.of(inner) for inner in value]
        if isinstance(value, set | frozenset):
            return {_hashable(part) for part, _ in parts}, 1 + len(parts)
        values = [part for part, _ in parts]
        return tuple(values) if isinstance(value, tuple) else values, 1 + sum(count for _, count in parts)

    def _key(self, key: Any) -> Any:
        return _hashable(self.of(key)[0])

    def _of_thing(self, thing: Thing) -> tuple[Any, int]:
        if _TENSOR.fullmatch(thing.name):
            inner = thing
            while "parameter" in inner.name:
                inner = inner.args[0] if inner.args else None
                if not (isinstance(inner, Thing) and _TENSOR.fullmatch(inner.name)):
                    raise UnreadableError("parameters that are no tensors")
            return self._tensor(inner), 1
        if _NUMPY.fullmatch(thing.name):
            return make_array(thing), 1
        if _PATH.fullmatch(thing.name):
            return _path(thing), 1
        return self.of(_content_of(thing))


def _hashable(key: Any) -> Any:
    try:
        hash(key)
    except TypeError as error:
        raise UnreadableError("keys that are no plain values") from error
    return key


def _path(thing: Thing) -> str:
    if not all(isinstance(part, str) for part in thing.args):
        raise UnreadableError("a path of what is no text")
    return str((PureWindowsPath if "Windows" in thing.name else PurePosixPath)(*thing.args))


def _content_of(thing: Thing) -> Any:
    """What is left of an object without its class."""
    if thing.items or thing.entries:
        return thing.items or thing.entries
    state = thing.state
    if isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, dict | None) for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}  # attributes, and those with slots
    if isinstance(state, dict) and state:
        if {"_modules", "_parameters", "_buffers"} <= state.keys():
            return _state_dict_of(thing)
        for held in ("_content", "_val") if thing.name.startswith("omegaconf.") else ():
            if held in state:
                return state[held]
        return state
    if state:
        return state
    return thing.args[0] if len(thing.args) == 1 else (thing.args or {})


def _state_dict_of(module: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """The parameters and buffers of a pickled `torch.nn.Module`, under the names of its state dict."""
    if depth >= DEEPEST:
        raise UnreadableError(f"values nested more than {DEEPEST} deep")
    found: dict[str, Any] = {}
    state = module.state if isinstance(module, Thing) else None
    if not isinstance(state, dict):
        return found
    passing = state.get("_non_persistent_buffers_set", ())
    for part in ("_parameters", "_buffers"):
        with suppress(AttributeError):
            found |= {f"{prefix}{k}": v for k, v in state[part].items() if v is not None and k not in passing}
    for name, inner in dict(state.get("_modules") or {}).items():
        found |= _state_dict_of(inner, f"{prefix}{name}.", depth + 1)
        if len(found) > MOST_VALUES:
            raise UnreadableError(f"values that unfold to more than {MOST_VALUES:,}")
    return found
