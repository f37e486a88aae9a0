"""All libraries that run exported files, by name: file -> `Engine`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pyrafuse.base.registry import Registry


class Engine(ABC):
    """An exported file, ready to run on the processor.

    Args:
        path: Path of the file.
        threads: Number of threads; by default what the library chooses.

    Attributes:
        metadata: Texts by name that lie in the file.
        inputs: Names of what it takes.
        outputs: Names of what it gives.

    Raises:
        CheckpointError: If the file cannot be read.
        MissingLibraryError: If the library is not installed.
    """

    metadata: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @abstractmethod
    def __init__(self, path: Path, *, threads: int | None = None) -> None: ...

    @abstractmethod
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs by name, of inputs by name.

        Raises:
            Exception: Whatever the library raises of inputs that it cannot take.
        """


ENGINES: Registry[Engine] = Registry("engine", "pyrafuse.runtime.engines")
"""Each is registered with ``suffixes``, those of the files that it reads."""
