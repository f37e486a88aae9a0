"""What an unknown word of the command line was meant to be."""

import re
from collections.abc import Collection

from pyrafuse.base.errors import nearest
from pyrafuse.base.habits import find_habit


def name_unknown_option(name: str, options: Collection[str], *, words: Collection[str] = ()) -> str:
    """Say that ``name`` is none of ``options``, and what it means here.

    Args:
        name: Without dashes before it.
        options: Names of all options.
        words: Names of what is typed without an option.
    """
    nested = [known for known in options if known.endswith(f".{name}")]  # --epochs for --run.epochs
    ours = find_habit(name, {*options, *words})
    if ours in words:
        return f"unknown option --{name}; give the {ours} without an option: {' '.join(words).upper()}"
    near = [ours] if ours else nested or [found for found in (nearest(name, options),) if found]
    if near:
        return f"unknown option --{name}; did you mean {' or '.join(f'--{known}' for known in near)}?"
    return f"unknown option --{name}; choose from {', '.join(f'--{known}' for known in sorted(options))}"


def name_assignment(word: str, options: Collection[str], *, words: Collection[str] = ()) -> str | None:
    """Say what ``epochs=3``, as other tools are called, is here; None where it is nothing of that kind."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        return None
    key = key.lower()
    ours = key if key in options else find_habit(key, {*options, *words})
    if ours is None:
        return None
    is_switch = value.lower() in {"", "true", "false", "yes", "no"} and key != ours  # pretrained=True
    option = f"--{ours}" if is_switch else f"--{ours} {value}"
    return f"unexpected {word!r}; did you mean {value if ours in words else option}?"
