"""Plain values, of YAML or a command line, as what a type says; free of torch, so that the command line starts fast.

value, type, place -> `read_value` -> typed value, or an error: ``--run.epochs: expected int, got 'many'``
nested mapping -> `flatten` -> dotted names; dataclass -> `settings_of` -> its settings by dotted names
"""

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from pyrafuse.base.errors import PyrafuseError, nearest
from pyrafuse.base.folders import check_file
from pyrafuse.base.strict_yaml import StrictLoader

T = TypeVar("T")

TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
"""Words for a boolean."""


class _Loader(StrictLoader):
    """Knows 1e-3 as a number, as YAML 1.2 does; to PyYAML it is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Setting:
    """One value that can be set.

    Attributes:
        kind: Its type.
        default: Its default; `dataclasses.MISSING` where it must be given.
        owner: The dataclass that it is a field of; None for a function's parameter.
    """

    kind: Any
    default: Any
    owner: type | None = None


def settings_of(kind: type, prefix: str = "") -> dict[str, Setting]:
    """The settings of a dataclass by their dotted names; a field that is a dataclass gives its own settings instead."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(kind)
    for field in fields(kind):
        name, hint = prefix + field.name, hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            found |= settings_of(hint, f"{name}.")
        else:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            found[name] = Setting(hint, default, kind)
    return found


def kind_within(name: str, settings: Mapping[str, Setting]) -> Any:
    """The type of setting ``name``, or of what is within one that is a mapping; None if there is no such setting."""
    if name in settings:
        return settings[name].kind
    outer = next((known for known in settings if name.startswith(f"{known}.")), None)
    found = outer and next((kind for kind in _members(settings[outer].kind) if get_origin(kind) is dict), None)
    if outer is None or found is None:
        return None
    return get_args(found)[1] if "." not in name.removeprefix(f"{outer}.") else Any


def flatten(values: Mapping[Any, Any], settings: Mapping[str, Setting], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in ``values``, nested or dotted, down to ``settings``; known or not."""
    groups = {known[: i + 1] for known in settings for i, letter in enumerate(known) if letter == "."}
    for key, value in values.items():
        name = f"{prefix}{key}"
        is_inner = isinstance(value, Mapping) and kind_within(name, settings) is None
        if is_inner and (value or f"{name}." in groups):
            yield from flatten(value, settings, f"{name}.")
        elif value is not None or f"{name}." not in groups:
            yield name, value


def read_value(value: Any, kind: Any, place: str) -> Any:
    """``value`` as ``kind``: a dataclass, Literal, dict, tuple, list, Sequence, union, Path, str, bool, int or float.

    Text is read as what the type wants: ``0,1`` or ``[0, 1]`` as a row, ``1e-3`` as a number.

    Raises:
        PyrafuseError: If it is none, with ``place``.
    """
    origin = get_origin(kind) or kind
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _read_member(value, kind, place)
    if origin is Literal:
        return _read_choice(value, get_args(kind), place)
    if isinstance(origin, type) and is_dataclass(origin):
        return value if isinstance(value, origin) else create(origin, value, place)
    if isinstance(value, str) and (origin is dict or (_is_row(origin) and value.lstrip().startswith("["))):
        value = read_yaml(value, place)
    if origin is dict and isinstance(value, Mapping):
        inner = (get_args(kind) or (str, Any))[1]
        return {key: read_value(each, inner, f"{place}.{key}") for key, each in value.items()}
    if _is_row(origin):
        return _read_row(value, kind, place)
    found = _read_scalar(value, origin)
    if found is None:
        hint = "; put it in quotes" if origin is str and isinstance(value, int | float) else ""
        raise PyrafuseError(f"{place}: expected {write_kind(kind)}, got {_write(value)}{hint}")
    return found


def check_kind(value: Any, kind: Any, place: str) -> None:
    """Refuse a value that is not of ``kind``; of kinds that hold more than plain values, any will do.

    Unlike in `read_value`, no text is read as a number: who writes a value here knows its type.

    Raises:
        PyrafuseError: With ``place``.
    """
    if is_plain_kind(kind) and not _is_of(value, kind):
        expected = write_kind(kind)
        if is_choice_of(kind) and kind is not bool:
            near = nearest(str(value), is_choice_of(kind))
            expected = f"one of {', '.join(is_choice_of(kind))}" + (f" (did you mean {near!r}?)" if near else "")
        raise PyrafuseError(f"{place}: expected {expected}, got {_write(value)}")


def is_plain_kind(kind: Any) -> bool:
    """Whether ``kind`` is a scalar, a Literal, or a row or a union of such."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType) or _is_row(origin):
        return all(is_plain_kind(member) for member in args if member is not Ellipsis)
    return origin in (Literal, NoneType, bool, int, float, str)


def read_text(text: str, kind: Any, place: str) -> Any:
    """``text``, as typed, as ``kind``: ``null`` is None where the type has it, and where any value will do it is YAML.

    Raises:
        PyrafuseError: If it is none, with ``place``.
    """
    if kind is Any:
        return read_yaml(text, place)
    if text == "null" and NoneType in get_args(kind):
        return None
    return read_value(text, kind, place)


def create(kind: type[T], values: Any, place: str = "") -> T:
    """An instance of the dataclass ``kind`` from a mapping of its fields, nested as they are.

    Raises:
        PyrafuseError: If a field is unknown or missing, or a value does not fit; with its dotted name.
    """
    hints = get_type_hints(kind)
    prefix = f"{place}." if place else ""
    if not isinstance(values, Mapping):
        raise PyrafuseError(f"{place}: expected a mapping of {', '.join(hints)}, got {_write(values)}")
    for name in values:
        if name not in hints:
            near = nearest(str(name), hints)
            raise PyrafuseError(
                f"there is no setting {prefix}{name}; "
                + (f"did you mean {prefix}{near}?" if near else f"choose from {', '.join(hints)}")
            )
    for one in fields(cast("Any", kind)):
        if one.init and one.name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise PyrafuseError(f"{prefix}{one.name} is missing")
    return kind(**{name: read_value(value, hints[name], f"{prefix}{name}") for name, value in values.items()})


def read_yaml(text: str, place: str) -> Any:
    """The value of a YAML text.

    Raises:
        PyrafuseError: If it is none, with ``place``.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise PyrafuseError(f"{place} {text}: the value is no YAML; put text with signs in quotes") from error


def read_yaml_file(path: str | os.PathLike[str], *, option: str = "") -> Any:
    """The value of a YAML file.

    Args:
        path: Path of the file.
        option: What it was given to, such as ``--recipe``.

    Raises:
        PyrafuseError: If it cannot be read, with the place in it.
    """
    name = f"{option} {path}".lstrip()
    check_file(path)
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise PyrafuseError(f"no such file: {Path(path).absolute()}") from error
    except IsADirectoryError as error:
        raise PyrafuseError(f"{name} is a folder, not a YAML file") from error
    except UnicodeDecodeError as error:
        raise PyrafuseError(f"{name} is no YAML file: it is not text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise PyrafuseError(f"{name} is no YAML: {getattr(error, 'problem', None) or error}{line}") from error
    except PyrafuseError as error:
        raise PyrafuseError(f"{name}: {error}") from error


def to_plain(value: Any) -> Any:
    """``value`` as mappings, lists, text, numbers, booleans and None, which YAML and JSON hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def without_nan(value: Any) -> Any:
    """``value`` with None for each number that is undefined, at any depth: JSON holds no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_value(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """``values`` with ``value`` at the end of ``path``, one key deeper a step."""
    first, *rest = path
    inner = values.get(first)
    deeper = inner if isinstance(inner, Mapping) else {}
    return {**values, first: with_value(deeper, rest, value) if rest else value}


def write_kind(kind: Any) -> str:
    """A type as a reader knows it: ``int``, ``str | null``, ``tuple[int, ...]``."""
    if isinstance(kind, type) and not get_args(kind):
        return "null" if kind is NoneType else kind.__name__
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(write_kind, get_args(kind)))
    return re.sub(r"\b(?:[a-z_]+\.)+(?=\w)", "", str(kind))


def is_choice_of(kind: Any) -> tuple[str, ...]:
    """The choices of a Literal or boolean; empty for any other type."""
    return ("true", "false") if kind is bool else get_args(kind) if get_origin(kind) is Literal else ()


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_row(origin: Any) -> bool:
    return origin in (tuple, list, Sequence)


def _is_of(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(value, member) for member in args)
    if origin is Literal:
        return any(value is choice if isinstance(choice, bool | None) else value == choice for choice in args)
    if _is_row(origin):
        is_fixed = origin is tuple and args[-1:] != (Ellipsis,)
        kinds = args if is_fixed else args[:1] * len(value) if isinstance(value, list | tuple) else ()
        return isinstance(value, list | tuple) and len(value) == len(kinds) and all(map(_is_of, value, kinds))
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, origin) and (origin is bool or not isinstance(value, bool))


def _read_member(value: Any, kind: Any, place: str) -> Any:
    members = [member for member in get_args(kind) if member is not NoneType]
    if value is None and NoneType in get_args(kind):
        return None
    if len(members) == 1:
        return read_value(value, members[0], place)
    for member in members:
        try:
            return read_value(value, member, place)
        except PyrafuseError:
            continue
    known = (repr(choice) for member in members for choice in get_args(member) if get_origin(member) is Literal)
    names = [*(write_kind(member) for member in members if get_origin(member) is not Literal), *known]
    raise PyrafuseError(f"{place}: {_write(value)} is none of {', '.join(names)}")


def _read_choice(value: Any, choices: tuple[Any, ...], place: str) -> Any:
    wanted = value if isinstance(value, bool) else str(value)
    for choice in choices:
        if (choice is value) if isinstance(choice, bool) else (str(choice) == wanted):
            return choice
    near = nearest(str(value), map(str, choices))
    hint = f"; did you mean {near!r}?" if near else ""
    raise PyrafuseError(f"{place}: {_write(value)} is not one of {', '.join(map(str, choices))}{hint}")


def _read_row(value: Any, kind: Any, place: str) -> Any:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")] if value.strip() else []
    args = get_args(kind) or (Any,)
    is_fixed = get_origin(kind) is tuple and args[-1] is not Ellipsis
    if not isinstance(value, list | tuple) or (is_fixed and len(value) != len(args)):
        raise PyrafuseError(f"{place}: expected {write_kind(kind)}, got {_write(value)}")
    kinds = args if is_fixed else (args[0],) * len(value)
    items = [read_value(item, inner, place) for item, inner in zip(value, kinds, strict=True)]
    return items if get_origin(kind) is list else tuple(items)


def _read_scalar(value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; None if it is none."""
    if kind is bool:
        return TRUTHS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if kind is int:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        is_text = isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,400}\s*", value)
        return int(value) if is_int or is_text else None
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    if kind is Path:
        return Path(value) if isinstance(value, str | Path) else None
    return value if isinstance(kind, type) and isinstance(value, kind) else None


def _write(value: Any) -> str:
    return "null" if value is None else repr(value)
