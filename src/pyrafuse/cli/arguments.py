"""A function's signature as a command line: `def predict(model, source, /, *, score=0.3)` -> MODEL SOURCE --score.

signature -> `Options`; words -> names and typed values, in order -> the call. `--config FILE.yaml` gives values,
options after it override them one by one (`--optimizer.rate 0.01`), `--print_config` prints what would be used.
"""

import inspect
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from pyrafuse.base.errors import PyrafuseError, nearest
from pyrafuse.base.typed_values import (
    TRUTHS,
    Setting,
    create,
    flatten,
    kind_within,
    read_text,
    read_value,
    read_yaml_file,
    settings_of,
    to_plain,
    with_value,
)
from pyrafuse.cli.complaints import name_assignment, name_unknown_option
from pyrafuse.cli.helping import write_help
from pyrafuse.cli.shorthand import Given, Shorthand

CONFIG, PRINT = "config", "print_config"
NO_SHORT_FORMS = Shorthand(usage="", options={}, help={})


def call(function: Callable[..., int], argv: Sequence[str], *, prog: str) -> int:
    """Parse ``argv`` by the signature of ``function`` and call it.

    Positional-only parameters are positional words, ``*names`` one word or more, all others options. A function whose
    only parameter is a dataclass takes the fields of that dataclass as its options. A `Shorthand` adds short forms.
    An option of type ``Sequence`` may be repeated, one of type ``tuple`` takes values with commas between.
    ``-o`` is short for ``--output`` everywhere.

    Raises:
        PyrafuseError: If a word does not fit; the message names the option, the value and the nearest known one.
    """
    options = Options.of(function)
    if {"-h", "--help"} & {*argv[: argv.index("--") if "--" in argv else None]}:
        print(write_help(function, options.settings, prog=prog, words=options.words), end="", flush=True)
        return 0
    try:
        given = [*options.read_words(argv)]
        arguments = options.arrange([pair for pair in given if pair[0] != PRINT])
    except PyrafuseError as error:
        raise type(error)(f"{error} (see {prog} --help)") if isinstance(error, UsageError) else error from error
    except ValueError as error:  # a dataclass that refuses its values
        raise PyrafuseError(f"{error} (see {prog} --help)") from error
    if (PRINT, True) in given:
        shown = next(iter(arguments.values())) if options.is_dataclass else arguments
        print(yaml.safe_dump(to_plain(shown), sort_keys=False), end="", flush=True)
        return 0
    positional = [arguments.pop(name) for name in options.words if name != options.rest]
    return function(*positional, *(arguments.pop(options.rest) if options.rest else ()), **arguments)


class UsageError(PyrafuseError):
    """Words that a command does not take."""


@dataclass(frozen=True)
class Options:
    """What a command takes.

    Attributes:
        settings: Every option and positional word, by its name.
        words: Names of the positional words, in order.
        rest: The last of them, if it takes one word or more; empty if not.
        short: Its short forms.
        parameter: Name and type of the only parameter where that is a dataclass.
    """

    settings: Mapping[str, Setting]
    words: tuple[str, ...]
    rest: str
    short: Shorthand
    parameter: tuple[str, type] | None = None

    @classmethod
    def of(cls, function: Callable[..., int]) -> "Options":
        """The options that the signature of ``function`` and its `Shorthand` tell."""
        short = getattr(function, "shorthand", NO_SHORT_FORMS)
        parameters = inspect.signature(function).parameters
        hints = get_type_hints(function)
        if len(parameters) == 1:
            (name,) = parameters
            if isinstance(hints.get(name), type) and is_dataclass(hints[name]):
                defaults = short.defaults()
                settings = {
                    key: Setting(setting.kind, defaults.get(key, setting.default), setting.owner)
                    for key, setting in settings_of(hints[name]).items()
                }
                return cls(settings, (), "", short, (name, hints[name]))
        settings, words, rest = {}, [], ""
        for name, parameter in parameters.items():
            default = MISSING if parameter.default is parameter.empty else parameter.default
            kind = hints.get(name, str)
            if parameter.kind is parameter.VAR_POSITIONAL:
                kind, rest = Sequence[kind], name
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                words.append(name)
            if name not in short.hidden:
                settings[name] = Setting(kind, default)
        return cls(settings, tuple(words), rest, short)

    @property
    def is_dataclass(self) -> bool:
        """Whether the function takes one dataclass."""
        return self.parameter is not None

    @property
    def names(self) -> set[str]:
        """Everything that may follow two dashes."""
        groups = {name[:i] for name in self.settings for i, letter in enumerate(name) if letter == "."}
        known = {*self.settings, *self.short.options, *self._others, *groups, CONFIG, PRINT, "help"}
        return {name for name in known - {*self.words} if len(name) > 1}

    @property
    def _others(self) -> Mapping[str, Any]:
        return self.short.others()

    def kind_of(self, name: str) -> Any:
        """The type of an option, full or in a mapping that is one; None if there is none of that name."""
        if name in (CONFIG, PRINT) and name not in self._others:
            return str if name == CONFIG else bool
        others = {other: Setting(kind, None) for other, kind in self._others.items()}
        return None if name in self.words else kind_within(name, {**others, **self.settings})

    def read_words(self, argv: Sequence[str]) -> Iterator[Given]:
        """Name and typed value of everything in ``argv``, short forms resolved.

        Raises:
            UsageError: If a word does not fit.
        """
        remaining = deque(argv)
        bare = deque([self.short.positional] if self.short.positional else self.words)
        while remaining:
            word = remaining.popleft()
            if word != "--" and re.match(r"--|-[A-Za-z]", word):
                yield from self._read_option(word, remaining)
                continue
            values = [*remaining] if word == "--" else [word]
            if word == "--":
                remaining.clear()
            for value in values:
                yield from self._read_bare(value, bare)

    def settle(self, name: str, value: Any, *, is_typed: bool = False) -> list[Given]:
        """The options, with typed values, that ``value`` for ``name`` stands for.

        Args:
            name: Name of an option or short form.
            value: Text as typed, or a plain value.
            is_typed: Whether it is text as typed.

        Raises:
            UsageError: If there is no such option, or the value does not fit.
        """
        meaning = self.short.options.get(name, name)
        if not isinstance(meaning, str):
            return [pair for inner, each in meaning(value) for pair in self.settle(inner, each)]
        kind = self.kind_of(meaning)
        try:
            if kind is None and any(known.startswith(f"{meaning}.") for known in self.settings):
                return self._read_group(meaning, value)
            if kind is None:
                raise UsageError(name_unknown_option(name, self.names, words=self.words))
            if meaning == CONFIG and meaning not in self._others:
                return self._read_file(str(value))
            if get_origin(kind) is Sequence and isinstance(value, str):
                (item,) = get_args(kind)
                return [(meaning, (read_text(value, item, f"--{meaning}"),))]
            read = read_text if is_typed else read_value
            return [(meaning, read(value, kind, f"--{meaning}"))]
        except PyrafuseError as error:
            raise UsageError(str(error)) from error

    def arrange(self, given: Sequence[Given]) -> dict[str, Any]:
        """The function's arguments, by name.

        Raises:
            PyrafuseError: If one is missing, or values do not go together.
        """
        if self.short.arrange:
            given = self.short.arrange(given)
            if self.parameter:
                return dict(given)
        values: dict[str, Any] = {}
        for name, value in given:
            setting = self.settings.get(name)
            if setting and get_origin(setting.kind) is Sequence:
                value = (*values.get(name, ()), *value)
            values = put(values, name, value, self.settings)
        missing = [
            name if name in self.words else f"--{name}"
            for name, setting in self.settings.items()
            if setting.default is MISSING and name not in values
        ]
        if missing:
            raise UsageError(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} required")
        if not self.parameter:
            defaults = {name: s.default for name, s in self.settings.items() if s.default is not MISSING}
            return {**defaults, **values}
        nested: dict[str, Any] = {}
        for name, value in values.items():
            nested = with_value(nested, name.split("."), value)
        name, kind = self.parameter
        return {name: create(kind, nested)}

    def _read_option(self, word: str, remaining: deque[str]) -> list[Given]:
        option, equals, text = word.partition("=")
        name = option.lstrip("-").replace("-", "_")
        if not option.startswith("--"):
            name = {"o": "output"}.get(name, name) if name not in self.short.options else name
            if len(option) > 2 or self.short.options.get(name, name) not in self.names:
                raise UsageError(f"unexpected {word!r}")
        meaning = self.short.options.get(name, name)
        off = name.removeprefix("no_")
        off = self.short.options.get(off, off)
        if name.startswith("no_") and name not in self.names and isinstance(off, str) and self.kind_of(off) is bool:
            return [(off, False)]
        shown = f"--{meaning if isinstance(meaning, str) else name}"
        if isinstance(meaning, str) and self.kind_of(meaning) is bool and not equals:
            text = remaining.popleft() if remaining and remaining[0].lower() in TRUTHS else "true"
        elif not equals:
            if name not in self.names and name not in self.short.options and self.kind_of(name) is None:
                raise UsageError(name_unknown_option(name, self.names, words=self.words))
            if not remaining or re.match(r"--|-[A-Za-z]$", remaining[0]):
                raise UsageError(f"{shown} needs a value")
            text = remaining.popleft()
        return self.settle(name, text, is_typed=True)

    def _read_bare(self, word: str, bare: deque[str]) -> list[Given]:
        if not os.path.exists(word) and (habit := name_assignment(word, self.names, words=self.words)):
            raise UsageError(habit)
        if not bare:
            raise UsageError(f"unexpected {word!r}")
        name = bare[0]
        kind = self.settings[name].kind
        is_row = get_origin(kind) is Sequence
        if not is_row:
            bare.popleft()
        try:
            value = read_text(word, get_args(kind)[0] if is_row else kind, name)
        except PyrafuseError as error:
            raise UsageError(str(error)) from error
        return [(name, (value,) if is_row else value)]

    def _read_group(self, group: str, value: Any) -> list[Given]:
        """The settings of a group, from a file or a mapping."""
        if isinstance(value, str) and not os.path.isfile(value):
            inner = ", ".join(f"--{name}" for name in self.settings if name.startswith(f"{group}."))
            raise UsageError(f"--{group}: {value} is no YAML file; the options are {inner}")
        return self._read_mapping(read_yaml_file(value) if isinstance(value, str) else value, group, str(value))

    def _read_file(self, path: str) -> list[Given]:
        return self._read_mapping(read_yaml_file(path), "", path)

    def _read_mapping(self, values: Any, group: str, source: str) -> list[Given]:
        if not isinstance(values, Mapping):
            raise UsageError(f"{source} holds no settings, such as `{next(iter(self.settings))}: VALUE`")
        found = []
        for name, value in flatten(values, self.settings, f"{group}." if group else ""):
            kind = self.kind_of(name)
            if kind is None or name in (CONFIG, PRINT):
                near = nearest(name, self.settings)
                hint = f"did you mean {near}?" if near else f"choose from {', '.join(self.settings)}"
                raise UsageError(f"{source}: there is no setting {name}; {hint}")
            found.append((name, read_value(value, kind, f"{source}: {name}")))
        return found


def put(values: Mapping[str, Any], name: str, value: Any, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """``values`` with that of option ``name``; what is within an option that is a mapping leaves the rest of it."""
    outer = next((known for known in settings if name.startswith(f"{known}.")), None)
    if outer is None:
        return {**values, name: value}
    before = values.get(outer, settings[outer].default)
    whole = {} if before is MISSING or before is None else before
    return {**values, outer: with_value(whole, name.removeprefix(f"{outer}.").split("."), value)}
