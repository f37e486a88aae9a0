"""All loggers of a training by name: figures -> each logger that was asked for; one that fails ends no training."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyrafuse.base.extras import require
from pyrafuse.base.printable import printable
from pyrafuse.base.registry import Registry


@dataclass(frozen=True)
class LoggedRun:
    """What loggers learn of a run at its start.

    Attributes:
        folder: Folder of the run; its name is the name of the run.
        settings: The recipe as plain values, nested; addresses have no passwords.
        is_resumed: Whether it goes on from an earlier epoch.
    """

    folder: Path
    settings: Mapping[str, Any]
    is_resumed: bool = False

    def flat_settings(self) -> dict[str, Any]:
        """Each setting by its name with dots."""
        return dict(_flatten(self.settings, ""))


class Logger(ABC):
    """Takes the figures of one run. An error of it is reported once, and the training goes on without it.

    Args:
        run: The run; the library is imported here, and not before.
    """

    @abstractmethod
    def __init__(self, run: LoggedRun) -> None: ...

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take values by name, after so many optimiser steps; several calls may have one step."""

    @abstractmethod
    def close(self) -> None:
        """End the run; nothing is logged afterwards."""


LOGGERS: Registry[Logger] = Registry("logger", "pyrafuse.training.loggers")
"""Registered with the fact ``library``: the name that is imported."""


def check_loggers(names: Iterable[str]) -> None:
    """Refuse loggers that are unknown, or whose library is not installed.

    Raises:
        UnknownNameError: If there is no such logger.
        MissingLibraryError: If a library is missing; the message holds the line to type.
    """
    for entry in [LOGGERS.entry(name) for name in names]:
        if library := entry.facts.get("library"):
            require(library)


class Loggers:
    """Several loggers as one that never fails.

    Args:
        names: Names of the loggers.
        run: What they learn at the start.
        say: Takes a sentence for each one that fails.
    """

    def __init__(self, names: Iterable[str], run: LoggedRun, *, say: Callable[[str], None]) -> None:
        self._say = say
        self._open: dict[str, Logger] = {}
        for name in names:
            if (logger := self._attempt(name, LOGGERS.create, name, run)) is not None:
                self._open[name] = logger

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give ``values`` to each."""
        for name, logger in [*self._open.items()]:
            self._attempt(name, logger.log, values, step)

    def close(self) -> None:
        """End each."""
        while self._open:
            name, logger = self._open.popitem()
            self._attempt(name, logger.close)

    def _attempt(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # a library's own, of any kind: a full disk, a lost connection, a bug
            self._open.pop(name, None)
            reason = printable(str(error) or type(error).__name__, limit=300)
            self._say(f"the logger {name} failed and gets nothing more, the training goes on: {reason}")


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
