"""What a detector is made of, in plain values: each part by its registered name and all of its options.

name, options, YAML, command line -> `Part` -> built by its registry, which fills in every option that was left out
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, Union

from pyrafuse.base.errors import PyrafuseError

Plain = Union[None, bool, int, float, str, tuple["Plain", ...], Mapping[str, "Plain"], "Part"]
"""What an option can be; a mapping with the key ``name`` is a `Part`."""

NAME = "name"
"""The key of a mapping that makes it a part: no option is called so."""


@dataclass(frozen=True)
class Part:
    """One part of a detector.

    Attributes:
        name: Name in the registry.
        options: Arguments by name; a value may be a part. Sparse as it is written, whole once it was built.
    """

    name: str
    options: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.options, Mapping) or NAME in self.options:
            raise PyrafuseError(f"a part is a name and options, got {self.name!r} and {self.options!r}")
        object.__setattr__(self, "options", {str(key): plain(value) for key, value in self.options.items()})

    def with_options(self, **options: Any) -> "Part":
        """The same part with other values of ``options``."""
        return Part(self.name, {**self.options, **options})

    def to_plain(self) -> dict[str, Any]:
        """Mappings, lists and values that JSON and YAML hold; `plain` reads them back to an equal part."""
        return {NAME: self.name, **{key: to_plain(value) for key, value in self.options.items()}}


def part(name: str, **options: Any) -> Part:
    """A part in one line: ``part("max_iou", negative_iou=0.5)``."""
    return Part(name, options)


def plain(value: Any) -> Plain:
    """``value`` as an option: lists become tuples, paths their texts, and mappings with a name parts.

    Raises:
        PyrafuseError: If it is nothing of that kind.
    """
    if value is None or isinstance(value, bool | int | float | str | Part):
        return value
    if isinstance(value, Mapping):
        if NAME in value:
            return read_part(value)
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return tuple(map(plain, value))
    if isinstance(value, PathLike):
        return fspath(value)
    raise PyrafuseError(f"an option is a number, a text, a list or a mapping of these, not {value!r}")


def to_plain(value: Plain) -> Any:
    """An option as JSON and YAML hold it: the inverse of `plain`."""
    if isinstance(value, Part):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    return list(map(to_plain, value)) if isinstance(value, tuple) else value


def read_part(given: Any) -> Part:
    """A part of its name alone, of a mapping with its name, or itself.

    Raises:
        PyrafuseError: If it is none of these.
    """
    if isinstance(given, Part):
        return given
    if isinstance(given, str):
        return Part(given)
    if isinstance(given, Mapping) and isinstance(given.get(NAME), str):
        return Part(given[NAME], {key: value for key, value in given.items() if key != NAME})
    raise PyrafuseError(f"a part is a name, or a mapping of its name and options, not {given!r}")


def edit(before: Plain, change: Any, *, presets: Mapping[str, Mapping[str, Any]] | None = None) -> Plain:
    """``before`` with ``change`` made to it.

    Args:
        before: A part, or any other option.
        change: Another part by its name, alone or in a mapping with options; or a mapping of options of the part that
            is there, those of parts inside in mappings of their own.
        presets: Options that other parts begin with, by their name.
    """
    if not isinstance(before, Part):
        if isinstance(before, Mapping) and isinstance(change, Mapping) and NAME not in change:
            return plain({**before, **{key: edit(before.get(key), inner) for key, inner in change.items()}})
        return plain(change)
    if change is None or isinstance(change, Part):
        return change
    given = {NAME: change} if isinstance(change, str) else change
    if not isinstance(given, Mapping):
        raise PyrafuseError(f"the part {before.name} is changed by a name or a mapping of options, not by {change!r}")
    name = given.get(NAME, before.name)
    base = before if name == before.name else Part(name, (presets or {}).get(name, {}))
    options = {key: edit(base.options.get(key), value) for key, value in given.items() if key != NAME}
    return base.with_options(**options)


def find_differences(stored: Any, wanted: Any, place: str = "") -> Iterator[str]:
    """Every place in which two plain values differ, in words."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in [*stored, *(key for key in wanted if key not in stored)]:
            inner = f"{place}.{key}" if place else str(key)
            if key not in wanted:
                yield f"{inner} is there, and is not asked for"
            elif key not in stored:
                yield f"{inner} is asked for, and is not there"
            else:
                yield from find_differences(stored[key], wanted[key], inner)
    elif stored != wanted:
        yield f"{place} is {stored} there and {wanted} here"
