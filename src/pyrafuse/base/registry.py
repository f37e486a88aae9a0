"""Names for parts: `@NECKS.register("asff")` at the definition, `NECKS.create("asff", ...)` at the edge."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pyrafuse.base.errors import unknown_name

T = TypeVar("T")
Builder = TypeVar("Builder", bound=Callable[..., Any])

ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


class Registry(Generic[T]):
    """Maps a snake_case name to the callable that builds a part.

    Every module of ``package`` is imported on first use, so that a new file in that folder is all it takes to add a
    part. Code outside registers with the same decorator.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._builders: dict[str, Callable[..., T]] = {}
        self._papers: dict[str, str] = {}
        self._is_discovered = False

    def register(self, name: str, *, paper: str = "") -> Callable[[Builder], Builder]:
        """Register the decorated class or function under ``name``; a name taken twice is a `ValueError`."""

        def decorate(builder: Builder) -> Builder:
            self.add(name, builder, paper=paper)
            return builder

        return decorate

    def add(self, name: str, builder: Callable[..., T], *, paper: str = "") -> None:
        """Register ``builder``, a `functools.partial` say, under ``name``.

        Args:
            name: In snake_case.
            builder: What builds the part.
            paper: Its arXiv id, where it is not the first one that the builder's docstring or its file's header names.
        """
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self._builders[name]}")
        self._builders[name] = builder
        self._papers[name] = paper

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        self._discover()
        return tuple(sorted(self._builders))

    def get(self, name: str) -> Callable[..., T]:
        """Return the builder registered under ``name``.

        Raises:
            UnknownNameError: If there is none; the message lists the choices and the nearest name.
        """
        self._discover()
        if name not in self._builders:
            raise unknown_name(self.kind, name, self._builders)
        return self._builders[name]

    def paper(self, name: str) -> str:
        """The arXiv id of what is registered under ``name``; empty if it tells none.

        Raises:
            UnknownNameError: If there is none.
        """
        builder = self.get(name)
        if paper := self._papers.get(name):
            return paper
        function = getattr(builder, "func", builder)
        for text in (inspect.getdoc(function), getattr(inspect.getmodule(function), "__doc__", None)):
            if found := ARXIV.search(text or ""):
                return found[1]
        return ""

    def create(self, name: str, *args: Any, **options: Any) -> T:
        """Build the part registered under ``name``."""
        return self.get(name)(*args, **options)

    def _discover(self) -> None:
        if self._is_discovered:
            return
        self._is_discovered = True
        folder = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
