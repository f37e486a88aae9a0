"""What goes wrong for a user, as one small exception tree.

The command line turns a `PyrafuseError` into one message and exit status 2; any other exception is a bug of ours.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PyrafuseError(ValueError):
    """Base of all errors that a person can mend; the message names the place, the value and the remedy."""


class DataError(PyrafuseError):
    """An image, annotation file or data set that cannot be used."""


class CheckpointError(PyrafuseError):
    """A file that is no checkpoint, is damaged, does not fit the model, or would execute code when read."""


class UnknownNameError(PyrafuseError):
    """A name that nothing is registered under."""


def unknown_name(kind: str, name: str, names: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not among ``names``, with the nearest one suggested."""
    known = sorted(names)
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(known) or "nothing: none is known"
    return UnknownNameError(f"unknown {kind} {name!r};{hint} choose from {choices}")
