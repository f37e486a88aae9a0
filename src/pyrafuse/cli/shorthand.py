"""Short forms of a command's options: what people type -> the options that it stands for.

train photos --size 320 --device 0,1 -> --data.path=photos --data.size=320 --run.accelerator=gpu --run.devices=[0,1]
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.complaints import name_assignment

Meaning = str | Callable[[str], Sequence[str]]
"""The option that a short form stands for, or a function from its value to words."""

Function = TypeVar("Function", bound=Callable[..., int])

TRUTHS = frozenset({"true", "false", "yes", "no"})
"""What may follow a flag; a bare flag is true."""


@dataclass(frozen=True)
class Shorthand:
    """What may be typed instead of a command's own options.

    Attributes:
        usage: What the first line of the help shows after the command.
        options: Short form -> meaning.
        help: A sentence for each short form.
        positional: The option that a bare word gives its value to; empty for none.
        takes_several: Whether there may be several bare words; ``complete`` then puts them together.
        complete: Called with the words at the end.
        defaults: Values that the options have, by their full name, if they are not those of the signature.
    """

    usage: str
    options: Mapping[str, Meaning]
    help: Mapping[str, str]
    positional: str = ""
    takes_several: bool = False
    complete: Callable[[list[str]], list[str]] = list
    defaults: Callable[[], Mapping[str, Any]] = field(default=dict)

    def expand(self, argv: Sequence[str], *, flags: Collection[str], known: Collection[str]) -> list[str]:
        """Put full options in the place of short forms and bare words.

        Args:
            argv: As typed.
            flags: Options that need no value.
            known: All options of the command.

        Raises:
            PyrafuseError: If a bare word has no place, or a value does not fit.
        """
        words: list[str] = []
        remaining, has_positional = list(argv), False
        while remaining:
            word = remaining.pop(0)
            if not word.startswith("-"):
                self._check_bare(word, has_positional=has_positional, known=known)
                words.append(f"{self.positional}={word}")
                has_positional = True
                continue
            option, equals, value = word.partition("=")
            option = "--" + option[2:].replace("-", "_") if option.startswith("--") else option
            meaning = self.options.get(option, option)
            inner = self.options.get(f"--{option[5:]}", option) if option.startswith("--no_") else option
            if inner != option and isinstance(inner, str):
                meaning = f"--no_{inner[2:]}"
            is_flag = meaning in flags or option.startswith("--no_")
            has_value = bool(remaining) and (not is_flag or remaining[0].lower() in TRUTHS)
            if not equals and has_value:
                equals, value = "=", remaining.pop(0)
            if isinstance(meaning, str):
                words.append(f"{meaning}{equals}{value}")
            elif equals:
                words.extend(meaning(value))
            else:
                raise PyrafuseError(f"{option} needs a value")
        return self.complete(words)

    def _check_bare(self, word: str, *, has_positional: bool, known: Collection[str]) -> None:
        if habit := name_assignment(word, {*self.options, *known}):
            raise PyrafuseError(habit)
        if (has_positional and not self.takes_several) or not self.positional:
            raise PyrafuseError(f"unexpected {word!r}")


def shorthand(given: Shorthand) -> Callable[[Function], Function]:
    """Let the decorated command be called with short forms."""

    def decorate(function: Function) -> Function:
        function.shorthand = given  # type: ignore[attr-defined]
        return function

    return decorate
