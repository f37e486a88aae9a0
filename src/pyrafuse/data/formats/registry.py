"""All annotation formats by name: what a format tells of itself, how it is recognised, and how its splits are read.

folder or file -> `AnnotationFormat` that recognises it -> `DataSet`, a reader a split -> `Reading`
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pyrafuse.base.registry import Registry
from pyrafuse.data.reading.folders import Tree
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.data.writing.layouts import Writing


@dataclass(frozen=True)
class DataSet:
    """A data set of one format, and how to read each of its splits.

    Attributes:
        path: Its folder, or the file that describes it.
        readers: What reads each split, given ``rules=``; ``""`` is the split that nothing names.
        tree: Its files, if they were walked.
        unnamed: File of annotations whose name speaks of no split, to be told of where it is not used.
        layout: Registered name of the format.
    """

    path: Path
    readers: Mapping[str, Callable[..., Reading]]
    tree: Tree | None = None
    unnamed: Path | None = None
    layout: str = ""

    def read(self, split: str, rules: ReadingRules) -> Reading:
        """Read ``split``, one of ``readers``."""
        reading = self.readers[split](rules=rules)
        return replace(reading, data=replace(reading.data, layout=self.layout, split=split))


class AnnotationFormat(ABC):
    """One way to store annotations. Subclass it, register it, and every command reads it.

    Attributes:
        title: What it is called in reports.
        looked_for: Its files, for the message that nothing was recognised.
        rank: Formats look in this order; those of the package have 10 and more, so that yours come first.
        set_aside: What its objects are called that count neither as found nor as missed, and how they come to count.
        naming: How to name classes that are called by their numbers; empty where every file of it names them.
        writing: How data are written in it; None where it is only read.
    """

    title: ClassVar[str]
    looked_for: ClassVar[str]
    rank: ClassVar[int] = 0
    set_aside: ClassVar[tuple[str, str]] = ("set aside", "annotate them as objects")
    naming: ClassVar[str] = ""
    writing: ClassVar[Writing | None] = None

    def open(self, file: Path) -> DataSet | None:  # noqa: ARG002
        """The data set that ``file`` describes; None if it is no file of this format."""
        return None

    def find_description(self, tree: Tree) -> DataSet | None:  # noqa: ARG002
        """The data set that a file in the folder itself describes, before any format looks at the other files."""
        return None

    @abstractmethod
    def find(self, tree: Tree) -> DataSet | None:
        """The data set that the files of a folder make up; None if they are not of this format."""


FORMATS: Registry[AnnotationFormat] = Registry("annotation format", "pyrafuse.data.formats")


def all_formats() -> list[tuple[str, AnnotationFormat]]:
    """Every format with its name, in the order in which they look."""
    return sorted(((name, FORMATS.create(name)) for name in FORMATS.names()), key=lambda item: item[1].rank)


def format_of(layout: str) -> AnnotationFormat | type[AnnotationFormat]:
    """The format that data were read from, for what it says of them; the ABC's own words for data made by hand."""
    return FORMATS.create(layout) if layout in FORMATS.names() else AnnotationFormat
