"""A function's signature as a command line: `def predict(model, source, /, *, score=0.3)` -> MODEL SOURCE --score.

signature + docstring -> jsonargparse -> typed values -> the call. `--config FILE.yaml` gives values, options after it
override them one by one (`--optimizer.rate 0.01`), `--print_config` prints what would be used.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser

from pyrafuse.cli.complaints import name_unknown_option, reword
from pyrafuse.core.errors import PyrafuseError

_TRUTHS = {"true", "false", "yes", "no"}


def call(function: Callable[..., int], argv: Sequence[str], *, prog: str) -> int:
    """Parse ``argv`` by the signature of ``function`` and call it.

    Positional-only parameters are positional words, ``*names`` one word or more, all others options. A function whose
    only parameter is a dataclass takes the fields of that dataclass as its options.

    Raises:
        PyrafuseError: If a word does not fit; the message names the option, the value and the nearest known one.
    """
    parser, bind = _create_parser(function, prog)
    words = _normalize(parser, argv)
    try:
        values = parser.parse_args(words)
        instances = vars(parser.instantiate(values))
        positional, keywords = bind({name: value for name, value in instances.items() if name != "config"})
    except ArgumentError as error:
        raise PyrafuseError(f"{reword(error.message, _options(parser))} (see {prog} --help)") from error
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
    parameters = inspect.signature(function).parameters
    hints = get_type_hints(function)
    if len(parameters) == 1:
        (name,) = parameters
        settings = hints.get(name)
        if isinstance(settings, type) and is_dataclass(settings):
            parser.add_class_arguments(settings, as_group=False)
            return parser, lambda values: ((settings(**values),), {})
    words: set[str | int] = {name for name, given in parameters.items() if given.kind is given.POSITIONAL_ONLY}
    rest = next((name for name, given in parameters.items() if given.kind is given.VAR_POSITIONAL), None)
    options: set[str | int] = {name for name in parameters if name not in words}
    parser.add_function_arguments(function, as_group=False, as_positional=True, skip=options | {rest or ""})
    if rest:
        texts = {given.arg_name: given.description or "" for given in docstring.params}
        parser.add_argument(rest, nargs="+", type=hints[rest], help=texts.get(rest, ""))
    parser.add_function_arguments(function, as_group=False, skip={*words, rest or ""})

    def bind(values: dict[str, Any]) -> Bound:
        positional = [values.pop(name) for name in parameters if name in words]
        return (*positional, *(values.pop(rest) if rest else ())), values

    return parser, bind


def _options(parser: ArgumentParser) -> dict[str, Any]:
    """Type of each option, by the option with its dashes."""
    return {
        option: getattr(action, "_typehint", None)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }


def _normalize(parser: ArgumentParser, argv: Sequence[str]) -> list[str]:
    """What people type -> what jsonargparse reads: ``--a-b``, bare ``--flag``, ``--no-flag`` and ``--list a,b``.

    Raises:
        PyrafuseError: If an option is unknown.
    """
    options = _options(parser)
    words: list[str] = []
    remaining = list(argv)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*words, word, *remaining]
        if not word.startswith("--"):
            words.append(word)
            continue
        option, equals, value = word.partition("=")
        option = "--" + option[2:].replace("-", "_")
        if option.startswith("--no_") and option not in options and options.get("--" + option[5:]) is bool:
            option, equals, value = "--" + option[5:], "=", "false"
        if option not in options and not _is_key_of_dict(option, options):
            raise PyrafuseError(f"{name_unknown_option(option, options)} (see {parser.prog} --help)")
        kind = options.get(option)
        if kind is bool and not equals:
            explicit = bool(remaining) and remaining[0].lower() in _TRUTHS
            equals, value = "=", remaining.pop(0) if explicit else "true"
        if _is_sequence(kind):
            if not equals and remaining:
                equals, value = "=", remaining.pop(0)
            if equals and not value.lstrip().startswith(("[", "{")) and value != "null":
                value = f"[{value}]"
        words.append(f"{option}{equals}{value}")
    return words


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in {tuple, list, Sequence} or any(
        get_origin(part) in {tuple, list} for part in get_args(kind) if get_origin(kind) is not dict
    )


def _is_key_of_dict(option: str, options: dict[str, Any]) -> bool:
    return get_origin(options.get(option.rpartition(".")[0])) is dict
