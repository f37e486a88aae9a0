"""Short forms of a command's options: what people type, and the options that it stands for.

train photos --size 320 --device 0,1 -> data.path photos, data.size 320, run.accelerator gpu, run.devices 0,1
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Given = tuple[str, Any]
"""Name of an option and the value that was given to it."""

Meaning = str | Callable[[str], Sequence[Given]]
"""The option that a short form stands for, or a function from its value to options and theirs."""

Function = TypeVar("Function", bound=Callable[..., int])


@dataclass(frozen=True)
class Shorthand:
    """What may be typed besides a command's own options.

    Attributes:
        usage: What the first line of the help shows after the command.
        options: Short form, without dashes -> meaning.
        help: A sentence for each short form, by what is typed: ``--size N``.
        positional: The option that a bare word gives its value to; several if it is a Sequence. Empty for none.
        others: Options that the signature does not tell, with their types, for `arrange`.
        arrange: From what was given, in order, to the function's arguments by name.
        defaults: Values that the options have, by their full name, if they are not those of the signature.
        hidden: Parameters that `arrange` fills, and no option.
    """

    usage: str
    options: Mapping[str, Meaning]
    help: Mapping[str, str]
    positional: str = ""
    others: Callable[[], Mapping[str, Any]] = field(default=dict)
    arrange: Callable[[Sequence[Given]], Sequence[Given]] | None = None
    defaults: Callable[[], Mapping[str, Any]] = field(default=dict)
    hidden: frozenset[str] = frozenset()


def shorthand(given: Shorthand) -> Callable[[Function], Function]:
    """Let the decorated command be called with short forms."""

    def decorate(function: Function) -> Function:
        function.shorthand = given  # type: ignore[attr-defined]
        return function

    return decorate
