"""Pickles read by a machine of our own: nothing that they name is imported, called, built or given a state.

bytes -> opcodes -> plain values, `Name` for what a pickle names, `Thing` for what it would build, parts of tensors
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

MOST_STEPS = 5_000_000
"""Opcodes of one pickle; a checkpoint of a detector has some ten thousands."""

MOST_BITS = 1024
"""Bits of a whole number; longer ones cannot be printed."""

MOST_BITS_OF_KEY = 60
"""Bits of a whole number that is a key, or in one."""

_ATOMS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: Mapping[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STRINGS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class UnreadableError(Exception):
    """A pickle that asks for what is not read; the message says for what, without the file."""


class Name:
    """What a pickle names: ``text`` is its module and its name. Nothing is imported."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Thing:
    """What a pickle would build of a class: the class's name, and what the pickle gives it.

    Attributes:
        name: Name of the class.
        args: What it would be made of.
        items: What would be set in it as in a mapping.
        entries: What would be appended to it.
        state: What it would be given at last; None where nothing was.
    """

    __slots__ = ("args", "entries", "items", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.args = args
        self.items: dict[Any, Any] = {}
        self.entries: list[Any] = []
        self.state: Any = None


class Calls(Protocol):
    """What stands for the calls of a pickle."""

    def __call__(self, name: str, args: tuple[Any, ...], *, is_new: bool) -> Any:
        """The value in place of ``name(*args)``, or, where ``is_new``, of a new object of that class."""


class Stream(Protocol):
    """What pickles are read from."""

    def read(self, size: int = ..., /) -> bytes: ...
    def readline(self) -> bytes: ...


def read_pickle(stream: Stream, *, call: Calls, find: Callable[[Any], Any]) -> Any:
    """The next pickle of ``stream``, of any protocol.

    Args:
        stream: Read up to the pickle's end.
        call: Answers the calls of the pickle.
        find: Answers what the pickle holds by reference, such as storages.

    Raises:
        UnreadableError: If the pickle asks for what is not read.
        Exception: Any other if it is damaged: each opcode has its own.
    """
    machine = _Machine(call, find)
    for step, (code, argument, _) in enumerate(pickletools.genops(stream)):  # type: ignore[arg-type]
        if code.name == "STOP":
            return machine.stack.pop()
        if step > MOST_STEPS:
            raise UnreadableError(f"a pickle of more than {MOST_STEPS:,} steps")
        machine.do(code.name, argument)
    raise ValueError("a pickle without an end")


class _Machine:
    """A stack, as the protocol of pickles describes it."""

    def __init__(self, call: Calls, find: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._call = call
        self._find = find

    def do(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in _ATOMS:
            stack.append(_checked(argument))
        elif code.endswith("GET"):
            stack.append(self._memo[argument])
        elif code.endswith("PUT"):
            self._memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            stack.append(_EMPTY[code]())
        elif code in _TUPLES:
            count = _TUPLES[code]
            stack[-count:] = [self._last(count)]
        elif code in _STRINGS:
            stack.append(_decode(argument))
        elif code == "MARK":
            self._marked.append(stack)
            self.stack = []
        elif code not in {"PROTO", "FRAME"}:
            getattr(self, f"_do_{code.lower()}", self._refuse)(*([] if argument is None else [argument]))

    def _last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("a pickle that takes more than it has")
        return tuple(self.stack[-count:])

    def _pop_marked(self) -> list[Any]:
        values, self.stack = self.stack, self._marked.pop()
        return values

    def _refuse(self, *_: Any) -> None:
        raise ValueError("a pickle with values that lie outside it")

    def _do_pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_marked()

    def _do_pop_mark(self) -> None:
        self._pop_marked()

    def _do_dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _do_list(self) -> None:
        values = self._pop_marked()
        self.stack.append(values)

    def _do_tuple(self) -> None:
        values = self._pop_marked()
        self.stack.append(tuple(values))

    def _do_dict(self) -> None:
        values = self._pop_marked()
        self.stack.append({})
        self._set(values)

    def _do_frozenset(self) -> None:
        values = self._pop_marked()
        self.stack.append(frozenset(map(check_key, values)))

    def _do_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _do_appends(self) -> None:
        values = self._pop_marked()
        self._extend(values)

    def _do_additems(self) -> None:
        values = self._pop_marked()
        target = self.stack[-1]
        if not isinstance(target, set):
            raise ValueError("a pickle that adds to what is no set")
        target.update(map(check_key, values))

    def _do_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _do_setitems(self) -> None:
        values = self._pop_marked()
        self._set(values)

    def _extend(self, values: Iterable[Any]) -> None:
        target = self.stack[-1]
        target = target.entries if isinstance(target, Thing) else target
        if not isinstance(target, list):
            raise ValueError("a pickle that appends to what is no list")
        target.extend(values)

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Thing) else target
        if not isinstance(target, dict):
            raise ValueError("a pickle that sets entries of what is no mapping")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[check_key(key)] = value

    def _do_global(self, text: str) -> None:
        self.stack.append(_name(*text.split(" ", 1)))

    def _do_stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_name(module, name))

    def _do_inst(self, text: str) -> None:
        args = self._pop_marked()
        self._make(_name(*text.split(" ", 1)), tuple(args), is_new=True)

    def _do_obj(self) -> None:
        name, *args = self._pop_marked()
        self._make(name, tuple(args), is_new=True)

    def _do_newobj(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        self._make(name, args, is_new=True)

    def _do_newobj_ex(self) -> None:
        named, args, name = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._make(name, (*args, named) if named else args, is_new=True)

    def _do_reduce(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        self._make(name, args, is_new=False)

    def _make(self, name: Any, args: Any, *, is_new: bool) -> None:
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise ValueError("a pickle that calls what has no name")
        text = name.text
        if text in {"copyreg.__newobj__", "copyreg.__newobj_ex__", "copyreg._reconstructor"}:
            made, *rest = args
            if not isinstance(made, Name):
                raise ValueError("a pickle that calls what has no name")
            text, is_new = made.text, True
            if name.text == "copyreg._reconstructor":  # class, base, what the base is made of
                rest = [] if rest[1] is None else rest[1:]
            elif name.text == "copyreg.__newobj_ex__":
                rest = [*rest[0], *([rest[1]] if rest[1] else [])]
            args = tuple(rest)
        self.stack.append(self._call(text, args, is_new=is_new))

    def _do_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Thing):
            target.state = state
        elif not isinstance(target, OrderedDict):  # its state is a state dict's versions of modules, which none needs
            raise ValueError("a pickle that gives a state to what takes none")

    def _do_binpersid(self) -> None:
        self.stack.append(self._find(self.stack.pop()))


def check_key(key: Any) -> Any:
    """``key`` if it may be one: a single value, or a flat tuple of them.

    Nested tuples whose parts are shared would take the age of the universe to hash, and large numbers can all have one
    hash.

    Raises:
        UnreadableError: If it is anything else.
    """
    parts = key if isinstance(key, tuple) else (key,)
    is_plain = all(part is None or isinstance(part, str | bytes | int | float | Name | Thing) for part in parts)
    if not is_plain or any(isinstance(part, int) and part.bit_length() > MOST_BITS_OF_KEY for part in parts):
        raise UnreadableError("keys that are no plain values")
    return key


def _checked(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UnreadableError(f"a whole number of more than {MOST_BITS:,} bits")
    if isinstance(value, bytearray):
        return bytes(value)
    # halves of characters can be read, but never be written again
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def _decode(text: str) -> str | bytes:
    """A string of Python 2, which `pickletools` gives byte by byte."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeDecodeError:
        return text.encode("latin-1")


def _name(module: Any, name: Any) -> Name:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("a pickle that names something by what is no text")
    return Name(f"{_RENAMED_MODULES.get(module, module)}.{name}")
