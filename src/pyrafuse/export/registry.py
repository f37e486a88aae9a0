"""All export formats by name: a captured graph -> one file, and back to something that runs."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

from pyrafuse.base.card import Card
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Input, Interface, Output, Precision
from pyrafuse.base.extras import describe_install
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.registry import Registry
from pyrafuse.base.spec import DetectorSpec

Feeds = Mapping[str, NDArray[Any]]
"""Inputs, or outputs, by name."""

Run = Callable[[Feeds], dict[str, NDArray[Any]]]
"""Inputs -> outputs of an exported file."""


@dataclass(frozen=True)
class Capture:
    """A detector as one graph, ready to be written in any format.

    Attributes:
        graph: The graph as a module: inputs in the order of ``inputs`` -> outputs in the order of ``outputs``.
        program: The same, captured.
        example: Inputs by name that it was captured with.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        interface: What it takes and gives.
        metadata: Texts that go into the file.
        calibration: Inputs by name of images that int8 takes its ranges from; empty for other precisions.
    """

    graph: nn.Module
    program: ExportedProgram
    example: Feeds
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    interface: Interface
    metadata: Mapping[str, str]
    calibration: Sequence[Feeds] = ()


class ExportFormat(ABC):
    """One format.

    Attributes:
        summary: What it is for, in a line.
        suffix: How its files end; empty for a folder.
        modules: Libraries that it needs beside torch.
        extra: The extra of the package that brings them.
        inputs: Forms of input that it takes.
        outputs: Forms of output that it takes.
        precisions: Numbers that it can compute in.
        needs_static: Whether sizes and batch are fixed, asked for or not.
    """

    summary: ClassVar[str]
    suffix: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "export"
    inputs: ClassVar[tuple[Input, ...]] = ("image", "fitted", "scaled", "tensor")
    outputs: ClassVar[tuple[Output, ...]] = ("nms", "rows", "raw", "levels")
    precisions: ClassVar[tuple[Precision, ...]] = ("fp32",)
    needs_static: ClassVar[bool] = False
    is_named: ClassVar[bool] = False

    def preprocessing(self, card: Card, size: int | tuple[int, int] | None) -> Preprocessing:
        """How images are made ready for the file; ``size`` as in `Card.preprocessing_at`."""
        return card.preprocessing_at(size)

    def refusal(self, spec: DetectorSpec | None, interface: Interface) -> str | None:  # noqa: ARG002
        """Why this format cannot take the detector that ``spec`` describes; None if it can.

        Args:
            spec: Description of the detector.
            interface: Form of input and output, sizes and precision.
        """
        return None

    @abstractmethod
    def write(self, capture: Capture, path: Path) -> None:
        """Write ``capture`` to ``path``, which is there under no name that anybody looks at yet."""

    @abstractmethod
    def open(self, path: Path) -> Run:
        """What runs the file, by the runtime that its users have."""

    def made(self, path: Path) -> Path:
        """The file or folder that was written for ``path``."""
        return path

    def remark(self, path: Path) -> str:  # noqa: ARG002
        """What the user should know of what was written for ``path``; empty if nothing is left to do."""
        return ""

    def require(self, precision: Precision) -> None:
        """Refuse if a library is missing.

        Args:
            precision: Numbers to compute in.

        Raises:
            PyrafuseError: With the line to type.
        """
        modules = (*self.modules, "nncf") if precision == "int8" else self.modules
        if missing := [name for name in modules if find_spec(name) is None]:
            raise PyrafuseError(
                f"this format needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed; "
                f"type {describe_install(self.extra)}"
            )


FORMATS: Registry[ExportFormat] = Registry("export format", "pyrafuse.export.formats")


def create_format(name: str, options: Mapping[str, Any]) -> ExportFormat:
    """The format registered under ``name``, with the arguments that it takes of its own.

    Raises:
        PyrafuseError: If there is no such format, or it takes no such argument.
    """
    known = FORMATS.options(name)
    if wrong := [option for option in options if option not in known]:
        raise PyrafuseError(f"the format {name} takes no {wrong[0]}; it takes {', '.join(known) or 'no such options'}")
    return FORMATS.create(name, **options)


def check_suffix(name: str, form: ExportFormat, path: Path) -> None:
    """Refuse a ``path`` that ends as the files of another format do.

    Raises:
        PyrafuseError: With the path to type.
    """
    others = {FORMATS.create(other).suffix for other in FORMATS.names()} - {"", form.suffix}
    if path.suffix.lower() in others:
        kind = f"a file that ends in {form.suffix}" if form.suffix else "a folder"
        raise PyrafuseError(f"{name} writes {kind}, and no {path.name}: type -o {path.with_suffix(form.suffix)}")


def format_for(path: Path) -> str:
    """The name of the format whose files end as ``path`` does.

    Raises:
        PyrafuseError: If none or several do.
    """
    suffixes: dict[str, list[str]] = {}
    for name in FORMATS.names():
        form = FORMATS.create(name)
        if not form.is_named:
            suffixes.setdefault(form.suffix, []).append(name)
    found = suffixes.get(path.suffix.lower(), []) if path.suffix else []  # a bare name is no wish for a folder
    if len(found) != 1:
        known = ", ".join(f"{suffix or 'a folder'} ({' or '.join(names)})" for suffix, names in suffixes.items())
        raise PyrafuseError(
            f"the end of {path.name} does not tell the format: name it with --format, or take one of {known}"
        )
    return found[0]


@contextmanager
def quiet() -> Iterator[None]:
    """No word of the exporter's steps and deprecations, which are not the user's."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
