"""Complaints of jsonargparse in the words of the command line: option, value, what fits, the nearest known word."""

import re
from collections.abc import Collection

import yaml

from pyrafuse.base.errors import nearest
from pyrafuse.base.habits import find_habit


def name_unknown_option(option: str, options: Collection[str], *, words: Collection[str] = ()) -> str:
    """Say that ``option`` is none of ``options``, and what it means here.

    Args:
        option: With its dashes.
        options: All options, with theirs.
        words: Names of what is typed without an option.
    """
    name = option.lstrip("-")
    nested = [known for known in options if known.endswith(f".{name}")]  # --epochs for --run.epochs
    ours = find_habit(name, {*(known.lstrip("-") for known in options), *words})
    if ours in words:
        return f"unknown option {option}; give the {ours} without an option: {' '.join(words).upper()}"
    near = (ours and f"--{ours}") or " or ".join(nested) or nearest(option, options)
    hint = f"; did you mean {near}?" if near else f"; choose from {', '.join(sorted(options))}"
    return f"unknown option {option}{hint}"


def name_assignment(word: str, options: Collection[str], *, words: Collection[str] = ()) -> str | None:
    """Say what ``epochs=3``, as other tools are called, is here; None where it is nothing of that kind."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        return None
    key = key.lower()
    ours = key if f"--{key}" in options else find_habit(key, {*(known.lstrip("-") for known in options), *words})
    if ours is None:
        return None
    is_switch = value.lower() in {"", "true", "false", "yes", "no"} and key != ours  # pretrained=True
    option = f"--{ours}" if is_switch else f"--{ours} {value}"
    return f"unexpected {word!r}; did you mean {value if ours in words else option}?"


def reword(message: str, options: Collection[str]) -> str:
    """Reword a message of jsonargparse; one of an unknown kind comes on one line, else unchanged.

    Args:
        message: As raised.
        options: All options, with their dashes.
    """

    def shown(key: str) -> str:
        return f"--{key}" if f"--{key}" in options else key

    message = re.sub(r"<class '([\w.]+)'>", r"\1", message)
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return name_assignment(found[1], options) or f"unexpected {found[1]!r}"
    if found := re.match(r"the following arguments are required: (.*)", message):
        needed = [shown(name) for name in found[1].split(", ")]
        return f"{', '.join(needed)} {'is' if len(needed) == 1 else 'are'} required"
    if found := re.match(r"argument (--\S+): expected one argument", message):
        return f"{found[1]} needs a value"
    if found := re.search(r"File does not exist: '(.*)'", message):
        return f"no such file: {found[1]}"
    if found := re.search(r"Parser key \"(.+?)\":\s*Unable to load config ['\"](.*?)['\"]", message):
        inner = [option for option in options if option.startswith(f"--{found[1]}.")]
        return f"{shown(found[1])}: {found[2]} is no YAML file; the options are {', '.join(inner)}"
    if found := re.match(
        r'Parser key "(.+?)":\s*Does not validate .*?Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.S
    ):
        choices = re.sub(r"(typing\.)?Literal\[(.*?)\]", r"\2", found[2])
        return f"{shown(found[1])}: {found[3]!r} is none of {choices}"
    message = re.sub(r'Parser key "(.+?)":\s*', lambda key: f"{shown(key[1])}: ", message)
    if found := re.search(r"Expected an? (?:typing\.)?Literal\[(.*?)\]\. Got value: (.*)", message, re.DOTALL):
        choices = [str(choice) for choice in yaml.safe_load(f"[{found[1]}]")]
        near = nearest(found[2], choices)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{message[: found.start()]}{found[2]!r} is not one of {', '.join(choices)}{hint}"
    message = re.sub(r"Expected an? (.+?)\. Got value: (.*)", r"expected \1, got '\2'", message, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", " ", message).strip()
