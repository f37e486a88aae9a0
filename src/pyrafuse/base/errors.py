"""What goes wrong for a user, as one small exception tree.

The command line turns a `PyrafuseError` into one message and exit status 2; any other exception is a bug of ours.
"""

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from math import inf
from numbers import Integral

from pyrafuse.base.printable import hide_logins, printable


class PyrafuseError(ValueError):
    """Base of all errors that a person can mend; the message names the place, the value and the remedy.

    A password in an address is no part of the message.
    """

    def __str__(self) -> str:
        return hide_logins(super().__str__())


class DataError(PyrafuseError):
    """An image, annotation file or data set that cannot be used."""


class CheckpointError(PyrafuseError):
    """A file that is no checkpoint, is damaged, does not fit the model, or would execute code when read."""


class UnknownNameError(PyrafuseError):
    """A name that nothing is registered under."""


def check_between(name: str, value: float | None, least: float, most: float = inf) -> None:
    """Refuse a number that lies outside ``least`` to ``most``, or is none; None passes."""
    if value is not None and not least <= value <= most:
        bounds = f"in {least}..{most}" if most < inf else f"{least} or more"
        raise PyrafuseError(f"{name} must be {bounds}, got {value}")


def check_count(name: str, value: int, least: int = 0, most: float = inf) -> None:
    """Refuse what is no whole number (3.0 and True are none), or lies outside ``least`` to ``most``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= most:
        allowed = f"{least} or more" if most == inf else f"{least} to {most:,}"
        raise PyrafuseError(f"{name} must be a whole number, {allowed}, got {printable(repr(value), limit=200)}")


MAX_CHOICES = 200


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``word`` was meant to be, as far as their letters tell; None if none is near."""
    return next(iter(get_close_matches(word, sorted(known), n=1, cutoff=0.65)), None)


def fold_name(name: str) -> str:
    """What is left of a name where case, spaces, hyphens and underscores do not count: the same for one class."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def same_but_for_case(names: Iterable[str], known: Iterable[str]) -> str:
    """A sentence's end that offers the one of ``known`` which folds like one of ``names``; empty where none does."""
    folded = {fold_name(name): name for name in known}
    pairs = [(name, folded[fold_name(name)]) for name in names if fold_name(name) in folded]
    if not pairs:
        return ""
    return "; did you mean " + ", ".join(f"{other!r} for {name!r}" for name, other in pairs[:5]) + "?"


def unknown_name(kind: str, name: str, names: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not among ``names``, with the nearest one suggested."""
    known = sorted(names)
    near = nearest(name, known)
    hint = f" did you mean {near!r}?" if near else ""
    if len(known) > MAX_CHOICES:  # all of timm's would fill the screen
        known = get_close_matches(name, known, n=10, cutoff=0.6) or known[:10]
        known.append("...")
    choices = ", ".join(map(printable, known)) or "nothing: none is known"
    return UnknownNameError(f"unknown {kind} {name!r};{hint} choose from {choices}")
