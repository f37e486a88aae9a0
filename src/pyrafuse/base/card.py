"""What a detector must remember to be built again and used."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pyrafuse.base.errors import PyrafuseError, check_count, unknown_name
from pyrafuse.base.parts import plain, to_plain
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.spec import DetectorSpec

CARD_KEY = "pyrafuse"
"""The entry of a checkpoint that holds the card."""

PREFIX = "detector."
"""How the names of a checkpoint's weights begin."""


SMALLEST_SIZE = 32
"""Least side of the network's input in pixels, in training as well."""


@dataclass(frozen=True)
class Card:
    """What a detector must remember to be built again and used: stored in every checkpoint.

    Attributes:
        spec: What it is made of, with every option of every part; None of a detector that was put together by hand.
        model: The name that it was described by; empty where it has none.
        names: Names of the classes.
        category_ids: The data's own id of each class, a number or a text.
        preprocessing: How its images are made ready.
        origin: Where its weights come from, in words.
    """

    spec: DetectorSpec | None = None
    model: str = ""
    names: tuple[str, ...] = ()
    category_ids: tuple[int | str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    origin: str = ""

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names) if self.spec is None else self.spec.num_classes

    def find_labels(self, classes: Sequence[str | int] | str | int | None) -> tuple[int, ...]:
        """The labels of ``classes``, given by name or number; none for all.

        Raises:
            PyrafuseError: If there is no such class, or the sequence is empty.
        """
        if classes is None:
            return ()
        given = [classes] if isinstance(classes, str | int) else list(classes)
        if not given:
            raise PyrafuseError("classes is empty; name one, or leave it out for all")
        count = self.num_classes
        labels = []
        for name in given:
            number = int(name) if isinstance(name, int) or (name.isdecimal() and name not in self.names) else None
            if number is not None and not 0 <= number < count:
                raise PyrafuseError(f"no class {number}; the detector has {count}, from 0 to {count - 1}")
            if number is None and name not in self.names:
                raise unknown_name("class", str(name), self.names)
            labels.append(self.names.index(str(name)) if number is None else number)
        return tuple(dict.fromkeys(labels))

    def preprocessing_at(self, size: int | tuple[int, int] | None) -> Preprocessing:
        """The preprocessing at another size, in pixels.

        Raises:
            PyrafuseError: If it is less than `SMALLEST_SIZE`.
        """
        if size is None:
            return self.preprocessing
        sides = (size,) if isinstance(size, int) else tuple(size)
        if len(sides) > 2:
            raise PyrafuseError(f"size is one side, or height and width, got {size}")
        for side in sides:
            check_count("size", side, SMALLEST_SIZE)
        return self.preprocessing.at_size(size)


def card_to_dict(card: Card) -> dict[str, Any]:
    """Plain values, fit for a checkpoint."""
    values: dict[str, Any] = {field.name: getattr(card, field.name) for field in fields(card)}
    values["spec"] = None if card.spec is None else card.spec.to_plain()
    values["preprocessing"] = asdict(card.preprocessing)
    return to_plain(plain(values))
