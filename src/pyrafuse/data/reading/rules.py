"""How a data set is read where annotations leave a choice; free of torch, so that the command line starts fast."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from pyrafuse.base.errors import PyrafuseError

UNITS = ("pixels", "shares", "percent")
"""What the numbers of a box can be: pixels, shares of the image (0..1) or percent of it (0..100)."""

ORDERS = ("corners", "sizes", "centers")
"""What the numbers of a box can be in turn: x1 y1 x2 y2; x y width height; centre x, centre y, width, height."""


@dataclass(frozen=True)
class BoxFormat:
    """How four numbers stand for a box.

    Attributes:
        unit: One of `UNITS`.
        order: One of `ORDERS`.
        is_one_based: Pixels are counted from 1 and the last one is inside, as in Pascal VOC.
    """

    unit: str
    order: str
    is_one_based: bool = False


@dataclass(frozen=True)
class ReadingRules:
    """How lenient reading is, and how boxes are meant; `read_splits`, `read_split` and every reader take it.

    Attributes:
        missing: ``error`` refuses a data set that lists images which are not there; ``skip`` leaves them out and
            counts them.
        exif: The frame that boxes are drawn in, of images which EXIF turns: ``stored`` as the pixels lie in the file,
            ``upright`` as they are looked at. It counts where the annotated width and height cannot tell; ``auto``
            takes them as upright and warns.
        boxes: ``auto`` is what the layout has (COCO: pixels,sizes; Pascal VOC: pixels,corners; YOLO: shares,centers),
            refused where the numbers speak against it. A word of `UNITS`, one of `ORDERS`, or both with a comma say
            what the numbers are instead; ``rotated`` says that the number after a box is an angle.

    Raises:
        PyrafuseError: If a value is none of those allowed.
    """

    missing: Literal["error", "skip"] = "error"
    exif: Literal["auto", "stored", "upright"] = "auto"
    boxes: str = "auto"

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, allowed = getattr(self, name), get_args(kind)
            if allowed and value not in allowed:
                raise PyrafuseError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
        words = self.box_words
        kinds = ["unit" if w in UNITS else "order" if w in ORDERS else w for w in words]
        if set(kinds) - {"unit", "order", "rotated"} or len(set(kinds)) < len(kinds):
            raise PyrafuseError(
                f"boxes must be auto, or one of {', '.join(UNITS)}, one of {', '.join(ORDERS)}, or one of each as in "
                f"shares,corners; rotated may stand beside them; got {self.boxes!r}"
            )

    @property
    def box_words(self) -> tuple[str, ...]:
        """The words of ``boxes``; none for ``auto``."""
        return () if self.boxes == "auto" else tuple(word.strip() for word in str(self.boxes).split(","))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], **given: Any) -> "ReadingRules":
        """Take the rules out of ``values``, the ``data`` of a recipe; those of ``given`` that are not None win."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known | {name: value for name, value in given.items() if value is not None})


DEFAULT_RULES = ReadingRules()
