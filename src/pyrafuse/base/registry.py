"""Names for parts: `@NECKS.register("asff")` at the definition, `NECKS.build(part("asff"), inputs)` at the edge."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar, get_type_hints

from pyrafuse.base.errors import PyrafuseError, nearest, unknown_name
from pyrafuse.base.parts import Part, edit, plain, read_part
from pyrafuse.base.printable import printable
from pyrafuse.base.typed_values import check_kind

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")

GIVEN = frozenset({"num_classes", "coder", "head", "features", "stages"})
"""Arguments that the parts before give, by name: no options."""

FILLING = frozenset({"weights", "pretrained"})
"""Arguments that say what a part is filled with, not what it is: no options."""

NEEDED = object()
"""In place of a default: there is none."""

Derive = Callable[[Mapping[str, Any]], Any]
"""What the parts before give, by name, and ``inputs``, the pyramid that is read -> the value of an option."""

NOTHING: Mapping[str, Any] = MappingProxyType({})

LARGEST_NUMBER = 2_000_000
"""Largest whole number that an option may be or hold: numbers count channels, repeats and pixels."""


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What is registered under a name.

    Attributes:
        builder: What builds the part.
        paper: arXiv id; empty where the docstring tells it.
        parts: The registry of each option that is a part itself; ``builder`` gets what was built of it.
        makers: The registry of each option that is a part built later; ``builder`` gets a function that builds it, of
            the same arguments as `Registry.build`.
        defaults: The parts that options are where they are None or left out.
        derived: How options are worked out of the parts before, where they are None or left out.
        facts: What else is to be known of parts of its kind, by name.
    """

    builder: Callable[..., T]
    paper: str = ""
    parts: Mapping[str, "Registry[Any]"] = field(default_factory=dict)
    makers: Mapping[str, "Registry[Any]"] = field(default_factory=dict)
    defaults: Mapping[str, Part] = field(default_factory=dict)
    derived: Mapping[str, Derive] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Maps a snake_case name to the callable that builds a part.

    Every module of ``package`` is imported on first use, so that a new file in that folder is all it takes to add a
    part. Code outside registers with the same decorator. The builder's signature is the schema of the part's options:
    its keyword-only arguments, and of a class those with a default.

    Args:
        kind: What it is called in messages.
        package: Folder of its parts.
        functions: Parts are functions that are used as they are, with their options bound.
    """

    def __init__(self, kind: str, package: str, *, functions: bool = False) -> None:
        self.kind = kind
        self._package = package
        self._functions = functions
        self._entries: dict[str, Entry[T]] = {}
        self._is_discovered = False

    def register(self, name: str, **about: Any) -> Callable[[Builder], Builder]:
        """Register the decorated class or function under ``name``; a name taken twice is a `ValueError`.

        Args:
            name: Name in snake_case.
            about: Arguments of `add`.
        """

        def decorate(builder: Builder) -> Builder:
            self.add(name, builder, **about)
            return builder

        return decorate

    def add(
        self,
        name: str,
        builder: Callable[..., T],
        *,
        paper: str = "",
        parts: "Mapping[str, Registry[Any]]" = NOTHING,
        makers: "Mapping[str, Registry[Any]]" = NOTHING,
        defaults: Mapping[str, Part] = NOTHING,
        derived: Mapping[str, Derive] = NOTHING,
        **facts: Any,
    ) -> None:
        """Register ``builder``, a `functools.partial` say, under ``name``.

        Args:
            name: Name in snake_case.
            builder: What builds the part.
            paper: Its arXiv id, where it is not the first one that the builder's docstring or its file's header names.
            parts: Registries of options that are parts, as in `Entry`.
            makers: Registries of options that are built later, as in `Entry`.
            defaults: Default parts, as in `Entry`.
            derived: Functions that work options out, as in `Entry`.
            facts: Further facts, as in `Entry`.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self._entries[name].builder}")
        self._entries[name] = Entry(builder, paper, parts, makers, defaults, derived, facts)

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted; without those whose facts say ``is_listed=False``."""
        self._discover()
        return tuple(sorted(name for name, entry in self._entries.items() if entry.facts.get("is_listed", True)))

    def entry(self, name: str) -> Entry[T]:
        """What is registered under ``name``.

        Raises:
            UnknownNameError: If there is none; the message lists the choices and the nearest name.
        """
        self._discover()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> Callable[..., T]:
        """Return the builder registered under ``name``.

        Raises:
            UnknownNameError: If there is none; the message lists the choices and the nearest name.
        """
        return self.entry(name).builder

    def paper(self, name: str) -> str:
        """The arXiv id of what is registered under ``name``; empty if it tells none.

        Raises:
            UnknownNameError: If there is none.
        """
        entry = self.entry(name)
        if entry.paper:
            return entry.paper
        function = getattr(entry.builder, "func", entry.builder)
        for text in (inspect.getdoc(function), getattr(inspect.getmodule(function), "__doc__", None)):
            if found := ARXIV.search(text or ""):
                return found[1]
        return ""

    def create(self, name: str, *args: Any, **options: Any) -> T:
        """Build the part registered under ``name`` of arguments as its builder takes them."""
        return self.get(name)(*args, **options)

    def options(self, name: str) -> dict[str, Any]:
        """The options of a part with their defaults, `NEEDED` where there is none.

        Raises:
            UnknownNameError: If there is no such part.
        """
        builder, inner = self.get(name), self.entry(name).parts
        is_class = inspect.isclass(builder)
        return {
            name: NEEDED if given.default is given.empty else given.default
            for name, given in inspect.signature(builder).parameters.items()
            if (name not in GIVEN | FILLING or name in inner)
            and (given.kind is given.KEYWORD_ONLY or name in inner or (is_class and given.default is not given.empty))
        }

    def takes_any(self, name: str) -> bool:
        """Whether the part hands on options that its own signature does not name."""
        return any(given.kind is given.VAR_KEYWORD for given in inspect.signature(self.get(name)).parameters.values())

    def build(self, given: Any, *args: Any, **context: Any) -> T:
        """`make` without the resolved part."""
        return self.make(given, *args, **context)[0]

    def make(self, given: Any, *args: Any, **context: Any) -> tuple[T, Part]:
        """Build a part; all that its description leaves out is filled in.

        Args:
            given: A `Part`, a name, or a mapping of both.
            args: What comes first for the builder: the pyramid that a neck or a head reads.
            context: What other parts give, by the argument's name; what a builder does not take is left aside.

        Returns:
            What was built, and the part with every option, however deep, as a plain value.

        Raises:
            UnknownNameError: If there is no such part.
            PyrafuseError: If it has no such option, needs one, or refuses a value; the message names the part.
        """
        sparse = read_part(given)
        entry = self.entry(sparse.name)
        values = self._fill(sparse, entry, {**context, "inputs": args[0]} if args else context)
        built, resolved = dict(values), dict(values)
        makers: dict[str, Any] = {}
        for name, value in values.items():
            if value is not None and name in entry.parts:
                built[name], resolved[name] = entry.parts[name].make(value, **context)
            elif value is not None and name in entry.makers:
                makers[name] = built[name] = _over(value, partial(_Maker, entry.makers[name], context))
        taken = dict(list(inspect.signature(entry.builder).parameters.items())[len(args) :])
        built |= {name: value for name, value in context.items() if name in taken and name not in built}
        if missing := [name for name, at in taken.items() if at.default is at.empty and built.get(name, at) is None]:
            raise PyrafuseError(f"the {self.kind} {sparse.name} needs a {missing[0]}, and the description has none")
        try:
            if self._functions and not inspect.isclass(entry.builder):
                made: Any = partial(entry.builder, **built) if built else entry.builder
            else:
                made = entry.builder(*args, **built)
        except PyrafuseError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            raise PyrafuseError(f"cannot build the {self.kind} {sparse.name}: {reason}") from error
        resolved |= {name: _over(value, lambda maker: maker.part) for name, value in makers.items()}
        return made, Part(sparse.name, resolved)

    def _fill(self, sparse: Part, entry: Entry[T], context: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value: as it is given, worked out, or by default."""
        known, kinds = self.options(sparse.name), _kinds(entry.builder)
        self._refuse_unknown(sparse, known)
        inner = {**entry.parts, **entry.makers}
        filled: dict[str, Any] = {}
        for name in {**known, **sparse.options}:
            value = sparse.options.get(name, NEEDED)
            default = known.get(name, NEEDED)
            if name in entry.derived and (value is None or value is NEEDED):
                value = plain(entry.derived[name](context))
            elif name in inner and (name in entry.defaults or default is not NEEDED):
                own = entry.defaults.get(name) or (None if default is None else inner[name].part_of(default))
                is_left = value is NEEDED or (value is None and name in entry.defaults)
                value = own if is_left else edit(own, value)
            elif value is NEEDED and default is not NEEDED:
                value = plain(default)
            elif name in kinds and value is not NEEDED:
                check_kind(value, kinds[name], f"{name} of the {self.kind} {sparse.name}")
            if value is NEEDED or (value is None and name in inner and default is not None):
                raise PyrafuseError(f"the {self.kind} {sparse.name} needs the option {name!r}")
            if (largest := _largest(value)) > LARGEST_NUMBER:
                raise PyrafuseError(
                    f"{name} of the {self.kind} {sparse.name} holds {printable(largest, limit=40)}, and the largest "
                    f"whole number of an option is {LARGEST_NUMBER:,}; correct it"
                )
            filled[name] = value
        return filled

    def _refuse_unknown(self, sparse: Part, known: Mapping[str, Any]) -> None:
        takes_any = self.takes_any(sparse.name)
        for option in sparse.options:
            if option in FILLING:
                raise PyrafuseError(
                    f"{option} says what the {self.kind} {sparse.name} is filled with, not what it is: give it as "
                    "backbone_weights"
                )
            if option not in known and not takes_any:
                near = nearest(option, known)
                hint = f" did you mean {near!r}?" if near else ""
                choices = ", ".join(sorted(known)) or "nothing: it has no options"
                raise PyrafuseError(
                    f"the {self.kind} {sparse.name} takes no option {option!r};{hint} choose from {choices}"
                )

    def part_of(self, builder: Any) -> Part:
        """The part that ``builder``, a default in a signature, is registered as.

        Raises:
            PyrafuseError: If it is not registered.
        """
        self._discover()
        if isinstance(builder, str):
            return Part(builder)
        for name, entry in self._entries.items():
            if entry.builder is builder:
                return Part(name)
        raise PyrafuseError(f"{builder} is no registered {self.kind}")

    def _discover(self) -> None:
        if self._is_discovered:
            return
        self._is_discovered = True
        folder = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{self._package}.{module.name}")


class _Maker:
    """Builds a part when it is called, and remembers what it was with all of its options."""

    def __init__(self, registry: Registry[Any], context: Mapping[str, Any], given: Any) -> None:
        self.part = read_part(given)
        self._registry = registry
        self._context = context

    def __call__(self, *args: Any, **context: Any) -> Any:
        made, self.part = self._registry.make(self.part, *args, **{**self._context, **context})
        return made


def _kinds(builder: Callable[..., Any]) -> dict[str, Any]:
    """The type of each argument, where it is annotated."""
    function = getattr(builder, "func", builder)
    try:
        return get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):  # annotations that are for readers alone
        return {}


def _largest(value: Any) -> int:
    """The largest of the whole numbers in an option, by its absolute value."""
    if isinstance(value, tuple):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _over(value: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of each, where ``value`` is a row of parts."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)
