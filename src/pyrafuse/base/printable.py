"""Names from files on one harmless line: text -> what a terminal, a table or a log can show."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

# all up to the last @ before the path; or user:password, whose password has a slash, and is no port and a path
_LOGIN = re.compile(
    r"""(?<=[A-Za-z0-9+.-]{2}:/)(/?)"""
    r"""(?:[^\s/?#'"<>]{1,500}|[^\s/?#'"<>:@\[]{1,500}:(?!\d{0,5}[/?#])[^\s'"<>@]{0,500})@"""
)


def hide_logins(text: str) -> str:
    """``text`` without user names and passwords in its addresses: ``s3://key:secret@bucket`` is ``s3://bucket``."""
    return _LOGIN.sub(r"\1", text) if "@" in text else text


def hide_logins_in(values: Any) -> Any:
    """The same of each text in plain values, nested in dicts and lists."""
    if isinstance(values, Mapping):
        return {name: hide_logins_in(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [hide_logins_in(value) for value in values]
    return hide_logins(values) if isinstance(values, str) else values


def printable(text: object, *, limit: int | None = None) -> str:
    r"""Escape everything in ``text`` that is no printable character, so that it stays on one line and gives no order.

    Addresses come as `hide_logins` leaves them.

    Line breaks, tabs, terminal escapes, marks that turn the direction of writing, and bytes that are no UTF-8 come as
    ``\n``, ``\x1b``, ``\u202e``, ``\udcff``.

    Args:
        text: A name, a path or a sentence with one.
        limit: Longest result in characters; the middle of a longer one is left out. By default there is none.
    """
    given = hide_logins(os.fspath(text) if isinstance(text, os.PathLike) else str(text))
    if not given.isprintable():
        given = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in given)
    if limit is not None and len(given) > limit:
        head = (limit - 3) * 2 // 3
        given = f"{given[:head]}...{given[head + 3 - limit :]}"
    return given


def list_names(names: Iterable[object], *, most: int = 8, limit: int = 120) -> str:
    """The first ``most`` of ``names``, each as `printable` with its ``limit`` has it, and how many more there are."""
    given = list(names)
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(printable(name, limit=limit) for name in given[:most]) + more


def printable_lines(text: str, *, limit: int | None = None) -> str:
    """The same of each line of a text that has several; ``limit`` is that of all of it."""
    shown = hide_logins(text) if text.isprintable() else "\n".join(map(printable, text.split("\n")))
    if limit is not None and len(shown) > limit:
        shown = f"{shown[: limit // 2]} ... {shown[5 - limit // 2 :]}"
    return shown


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``; ``plural`` where that takes more than an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
