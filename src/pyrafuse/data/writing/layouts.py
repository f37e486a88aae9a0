"""How a data set is laid out when it is written: splits with a place for each image -> the texts of its annotations."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pyrafuse.base.records import DetectionData

FRACTIONS, ASIDE, AREAS, BARE_CLASSES, NUMBERS = "fractions", "aside", "areas", "bare classes", "numbers"

KEPT = {
    FRACTIONS: "fractions of a pixel",
    ASIDE: "that objects are set aside",
    AREAS: "areas that are not those of the boxes",
    BARE_CLASSES: "classes without objects",
    NUMBERS: "numbers of images and classes",
}
"""What data hold besides whole boxes, classes and splits, and not every format can; in words."""


@dataclass(frozen=True)
class PlacedSplit:
    """A split and where its images lie.

    Attributes:
        data: The split.
        places: The place of each image, with ``/`` between folders: below the data set's folder, or from the root.
    """

    data: DetectionData
    places: tuple[str, ...]


@dataclass(frozen=True)
class Writing:
    """How a format is written.

    Attributes:
        texts: Gives the place below the data set's folder, and the text, of each file of annotations.
        image_folder: Where images belong; ``{split}`` is the split.
        keeps: Which of `KEPT` the format can hold.
        refers: Whether images may lie anywhere, because the annotations name them by their path.
    """

    texts: Callable[[Sequence[PlacedSplit]], Iterator[tuple[str, str]]]
    image_folder: str
    keeps: frozenset[str]
    refers: bool = False

    def folder_of(self, split: str) -> str:
        """The folder of the images of ``split``, without the part that names it where the split has no name."""
        return "/".join(filter(None, self.image_folder.format(split=split).split("/")))
