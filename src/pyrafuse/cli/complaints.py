"""Complaints of jsonargparse in the words of the command line: option, value, what fits, the nearest known word."""

import re
from collections.abc import Collection

import yaml

from pyrafuse.core.errors import nearest


def name_unknown_option(option: str, options: Collection[str]) -> str:
    """Say that ``option`` is none of ``options``, and which are near."""
    nested = [known for known in options if known.endswith(f".{option[2:]}")]  # --epochs for --run.epochs
    near = " or ".join(nested) or nearest(option, options)
    hint = f"; did you mean {near}?" if near else f"; choose from {', '.join(sorted(options))}"
    return f"unknown option {option}{hint}"


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
        key, equals, value = found[1].partition("=")
        is_habit = equals and f"--{key}" in options
        return f"unexpected {found[1]!r}" + (f"; did you mean --{key} {value}?" if is_habit else "")
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
