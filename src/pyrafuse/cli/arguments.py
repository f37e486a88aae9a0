"""A function's signature as a command line: `def predict(model, source, /, *, score=0.3)` -> MODEL SOURCE --score.

signature + docstring -> jsonargparse -> typed values -> the call. `--config FILE.yaml` gives values, options after it
override them one by one (`--optimizer.rate 0.01`), `--print_config` prints what would be used.
"""

import inspect
import os
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Collection, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.complaints import name_assignment, name_unknown_option, reword
from pyrafuse.cli.shorthand import TRUTHS, Shorthand

_NEED_NO_VALUE = {"-h", "--help", "--print_config"}


def call(function: Callable[..., int], argv: Sequence[str], *, prog: str) -> int:
    """Parse ``argv`` by the signature of ``function`` and call it.

    Positional-only parameters are positional words, ``*names`` one word or more, all others options. A function whose
    only parameter is a dataclass takes the fields of that dataclass as its options. A `Shorthand` adds short forms.
    ``-o`` is short for ``--output`` everywhere.

    Raises:
        PyrafuseError: If a word does not fit; the message names the option, the value and the nearest known one.
    """
    parser, bind = _create_parser(function, prog)
    short = getattr(function, "shorthand", None)
    options = _options(parser)
    if "--output" in {*options, *(short.options if isinstance(short, Shorthand) else ())}:
        argv = ["--output" if word == "-o" else word for word in argv]
    if isinstance(short, Shorthand):
        flags = _NEED_NO_VALUE | {option for option, kind in options.items() if kind is bool}
        words = _normalize(parser, short.expand(argv, flags=flags, known=options), short_forms=short.options)
    else:
        words = _normalize(parser, argv)
    try:
        values = parser.parse_args(words)
        instances = vars(parser.instantiate(values))
        positional, keywords = bind({name: value for name, value in instances.items() if name != "config"})
    except ArgumentError as error:
        raise PyrafuseError(f"{reword(error.message, options)} (see {prog} --help)") from error
    except SystemExit as leaving:  # --help and --print_config
        sys.stdout.flush()
        return int(leaving.code or 0)
    except PyrafuseError:
        raise
    except ValueError as error:  # a dataclass that refuses its values
        raise PyrafuseError(f"{error} (see {prog} --help)") from error
    return function(*positional, **keywords)


Bound = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""


def _create_parser(function: Callable[..., int], prog: str) -> tuple[ArgumentParser, Callable[[dict[str, Any]], Bound]]:
    """The parser of ``function``, and how its values become arguments."""
    docstring = docstring_parser.parse(inspect.getdoc(function) or "")
    parser = ArgumentParser(
        prog=prog, description=docstring.description, exit_on_error=False, allow_abbrev=False, default_env=False
    )
    parser.add_argument("--config", action="config", help="YAML file of values; options after it override them")
    short = getattr(function, "shorthand", None)
    if isinstance(short, Shorthand):
        _explain(short, parser)
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function)
    if len(parameters) == 1:
        (name,) = parameters
        settings = hints.get(name)
        if isinstance(settings, type) and is_dataclass(settings):
            parser.add_class_arguments(settings, as_group=False)
            if isinstance(short, Shorthand):
                parser.set_defaults(dict(short.defaults()))
                for option in set(short.options) & set(parser._option_string_actions):
                    parser._option_string_actions[option].help = SUPPRESS  # a file for one group of settings
            return parser, lambda values: ((settings(**values),), {})
    words: set[str | int] = {name for name, given in parameters.items() if given.kind is given.POSITIONAL_ONLY}
    rest = next((name for name, given in parameters.items() if given.kind is given.VAR_POSITIONAL), None)
    options: set[str | int] = {name for name in parameters if name not in words}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=options | {rest or ""})
    for action in parser._actions:
        if action.dest in words and parameters[action.dest].default is not inspect.Parameter.empty:
            action.nargs, action.required = "?", False  # jsonargparse knows no word that may be left out
    if rest:
        texts = {given.arg_name: given.description or "" for given in docstring.params}
        parser.add_argument(rest, nargs="+", type=hints[rest], help=texts.get(rest, ""))
    parser.add_function_arguments(function, as_group=False, skip={*words, rest or ""})

    def bind(values: dict[str, Any]) -> Bound:
        positional = [values.pop(name) for name in parameters if name in words]
        return (*positional, *(values.pop(rest) if rest else ())), values

    return parser, bind


def _explain(short: Shorthand, parser: ArgumentParser) -> None:
    """Show the short forms in the help; the parser itself never meets them."""
    parser.usage = f"{parser.prog} {short.usage}"
    group = parser.add_argument_group("short forms")
    for form, text in short.help.items():
        option, _, metavar = form.partition(" ")
        nargs = None if metavar else 0
        group._group_actions.append(
            Action([option], dest=option, nargs=nargs, metavar=metavar, help=text, default=SUPPRESS)
        )


def _options(parser: ArgumentParser) -> dict[str, Any]:
    """Type of each option, by the option with its dashes."""
    return {
        option: getattr(action, "_typehint", None)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }


def _normalize(parser: ArgumentParser, argv: Sequence[str], *, short_forms: Collection[str] = ()) -> list[str]:
    """What people type -> what jsonargparse reads: ``--a-b``, bare ``--flag``, ``--no-flag`` and ``--list a,b``.

    Args:
        parser: Knows the options.
        argv: Without short forms.
        short_forms: Named beside the options where a word is near one.

    Raises:
        PyrafuseError: If an option is unknown.
    """
    options = _options(parser)
    bare = [action.dest for action in parser._actions if not action.option_strings]
    words: list[str] = []
    remaining = list(argv)
    is_value = False  # what follows an option that has no value yet
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*words, word, *remaining]
        if not word.startswith("--"):
            if not is_value and not os.path.exists(word) and (habit := name_assignment(word, options, words=bare)):
                raise PyrafuseError(f"{habit} (see {parser.prog} --help)")
            words.append(word)
            is_value = False
            continue
        option, equals, value = word.partition("=")
        option = "--" + option[2:].replace("-", "_")
        if option.startswith("--no_") and option not in options and options.get("--" + option[5:]) is bool:
            option, equals, value = "--" + option[5:], "=", "false"
        if option not in options and not _is_key_of_dict(option, options):
            told = name_unknown_option(option, {*options, *short_forms}, words=bare)
            raise PyrafuseError(f"{told} (see {parser.prog} --help)")
        kind = options.get(option)
        if kind is bool and not equals:
            explicit = bool(remaining) and remaining[0].lower() in TRUTHS
            equals, value = "=", remaining.pop(0) if explicit else "true"
        if _is_sequence(kind):
            if not equals and remaining:
                equals, value = "=", remaining.pop(0)
            is_one = _is_scalar_too(kind) and "," not in value
            if equals and not is_one and not value.lstrip().startswith(("[", "{")) and value != "null":
                value = f"[{value}]"
        words.append(f"{option}{equals}{value}")
        is_value = not equals and option not in _NEED_NO_VALUE
    return words


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in {tuple, list, Sequence} or any(
        get_origin(part) in {tuple, list} for part in get_args(kind) if get_origin(kind) is not dict
    )


def _is_scalar_too(kind: Any) -> bool:
    """Whether a sequence or a single value will do, as in ``int | tuple[int, ...]``."""
    return get_origin(kind) not in {tuple, list, Sequence} and bool({int, float, str} & set(get_args(kind)))


def _is_key_of_dict(option: str, options: dict[str, Any]) -> bool:
    return get_origin(options.get(option.rpartition(".")[0])) is dict
