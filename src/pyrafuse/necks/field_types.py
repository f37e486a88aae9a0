"""Whether what stands in the fields of a dataclass is what they are annotated with."""

from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin

from pyrafuse.base.errors import PyrafuseError

WORDS = {bool: "true or false", int: "a whole number", float: "a number"}


def check_fields(instance: Any, place: str) -> None:
    """Refuse a value of another type than its field's; a list becomes the tuple that its field holds.

    Nothing else is converted: 3.0 is no whole number, and True is no number.

    Args:
        instance: Instance of a dataclass, a frozen one too, whose fields are plain types, tuples of one type, or either
            or None.
        place: What it is, for the message.

    Raises:
        PyrafuseError: Naming the field, what it takes, and the value.
    """
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, list) and _fits(tuple(value), field.type):
            object.__setattr__(instance, field.name, tuple(value))
        elif not _fits(value, field.type):
            example = field.default if isinstance(field.default, str) else "P4"
            raise PyrafuseError(f"{field.name} of {place} must be {_describe(field.type, example)}, got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(kind)[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _describe(kind: Any, example: str) -> str:
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
    if get_origin(kind) is tuple:
        (of, _) = get_args(kind)
        return "a list of names such as [C4, P5]" if of is str else f"a list of {of.__name__}"
    return f"a name such as {example}" if kind is str else WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")
