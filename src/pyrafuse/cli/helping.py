"""The help of a command: what its docstrings say about each option, with its type and default."""

import inspect
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, get_args, get_origin

import docstring_parser

from pyrafuse.base.typed_values import Setting, is_choice_of, write_kind
from pyrafuse.cli.shorthand import Shorthand


def write_help(
    function: Callable[..., Any], settings: Mapping[str, Setting], *, prog: str, words: Sequence[str]
) -> str:
    """The whole text.

    Args:
        function: The command.
        settings: Its options and positional words, by name.
        prog: How it is called.
        words: Names of the positional words.
    """
    about = docstring_parser.parse(inspect.getdoc(function) or "")
    short: Shorthand | None = getattr(function, "shorthand", None)
    parser = ArgumentParser(
        prog=prog,
        usage=f"{prog} {short.usage}" if short else None,
        description=_plain(about.description),
        add_help=False,
        allow_abbrev=False,
        conflict_handler="resolve",  # a short form that says more of an option stands for it
    )
    group = parser.add_argument_group("options")
    group.add_argument("-h", "--help", action="store_true", help="Show this help message and exit.")
    group.add_argument("--config", help="YAML file of values; options after it override them")
    group.add_argument(
        "--print_config", action="store_true", help="Print the configuration that would be used, and exit."
    )
    texts = {given.arg_name: given.description or "" for given in about.params}
    owned: dict[type, list[tuple[str, Setting]]] = {}
    for name, setting in settings.items():
        if setting.owner is not None:
            owned.setdefault(setting.owner, []).append((name, setting))
        else:
            _add(parser if name in words else group, name, setting, texts.get(name, ""), is_word=name in words)
    if short:
        forms = parser.add_argument_group("short forms")
        for form, text in short.help.items():
            option, _, metavar = form.partition(" ")
            if metavar:
                forms.add_argument(option, metavar=metavar, help=_plain(text))
            else:
                forms.add_argument(option, action="store_true", default=SUPPRESS, help=_plain(text))
    for owner, members in owned.items():
        described = docstring_parser.parse(inspect.getdoc(owner) or "")
        texts = {given.arg_name: given.description or "" for given in described.params}
        group = parser.add_argument_group((described.short_description or owner.__name__).rstrip("."))
        outer = members[0][0].rpartition(".")[0]
        if outer and not (short and outer in short.options):
            group.add_argument(f"--{outer}", metavar="FILE", help="YAML file of these values")
        for name, setting in members:
            _add(group, name, setting, texts.get(name.rpartition(".")[2], ""), is_word=False)
    return parser.format_help()


def _add(place: Any, name: str, setting: Setting, text: str, *, is_word: bool) -> None:
    kind = setting.kind
    is_needed = setting.default is MISSING
    default = "null" if setting.default is None else setting.default
    is_repeated = get_origin(kind) is Sequence
    shown = write_kind(get_args(kind)[0] if is_repeated else kind)
    told = f"required, type: {shown}" if is_needed else f"type: {shown}, default: {default}"
    choices = is_choice_of(kind)
    row = get_origin(kind) in (tuple, list, Sequence)
    metavar = f"{{{','.join(map(str, choices))}}}" if choices else "[ITEM,...]" if row and not is_repeated else None
    text = _plain(f"{text} ({told})".strip())
    if is_word:
        place.add_argument(name, nargs="+" if row else None if is_needed else "?", help=text)
    else:
        place.add_argument(f"--{name}", metavar=metavar or name.rpartition(".")[2].upper(), help=text)


def _plain(text: str | None) -> str:
    """Text as argparse shows it unchanged."""
    return (text or "").replace("%", "%%")
