"""What a detector must remember to be built again and used."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pyrafuse.base.errors import PyrafuseError, check_count, unknown_name
from pyrafuse.base.parts import plain, to_plain
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.spec import DetectorSpec, read_spec

CARD_KEY = "pyrafuse"
"""The entry of a checkpoint that holds the card."""

PREFIX = "detector."
"""How the names of a checkpoint's weights begin."""


SMALLEST_SIZE = 32
"""Least side of the network's input in pixels, in training as well."""

MOST_PIXELS = 2**14
"""Side of the images that a card may ask for."""


@dataclass(frozen=True)
class Card:
    """What a detector must remember to be built again and used: stored in every checkpoint.

    Attributes:
        spec: What it is made of, with every option of every part; None of a detector that was put together by hand.
        model: The name that it was described by; empty where it has none.
        names: Names of the classes.
        category_ids: The data's own id of each class, a number or a text.
        preprocessing: How its images are made ready.
        origin: Origin of the weights, in words.
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


def read_card(values: Mapping[str, Any]) -> Card:
    """The inverse of `card_to_dict`; ``spec`` may be read already.

    Raises:
        TypeError: If a value is missing or of a wrong kind.
        PyrafuseError: If what it describes is no detector.
    """
    given = _tuples(values)
    spec, preprocessing = given.get("spec"), given.get("preprocessing")
    if not isinstance(preprocessing, Mapping):
        raise TypeError(f"preprocessing {preprocessing!r}")
    if spec is not None and not isinstance(spec, DetectorSpec):
        spec = read_spec(spec)
    card = Card(**{**given, "spec": spec, "preprocessing": Preprocessing(**preprocessing)})
    kinds = {
        "model": isinstance(card.model, str),
        "names": isinstance(card.names, tuple) and all(isinstance(name, str) for name in card.names),
        "category_ids": isinstance(ids := card.category_ids, tuple) and all(isinstance(i, int | str) for i in ids),
        "preprocessing": _is_usable(card.preprocessing),
        "origin": isinstance(card.origin, str),
    }
    if wrong := [name for name, is_right in kinds.items() if not is_right]:
        raise TypeError(", ".join(f"{name} {getattr(card, name)!r}" for name in wrong))
    if card.names and card.category_ids and len(card.names) != len(card.category_ids):
        raise TypeError(f"{len(card.names)} names and {len(card.category_ids)} ids of classes")
    return card


def _is_usable(given: Preprocessing) -> bool:
    """Whether every value is of its kind."""
    choices = {
        name: get_args(hint) for name, hint in get_type_hints(Preprocessing).items() if get_origin(hint) is Literal
    }
    return (
        all(getattr(given, name) in allowed for name, allowed in choices.items())
        and _are(int, given.size, 2, 1, MOST_PIXELS)
        and _are((int, float), given.mean, 3, -1e6, 1e6)
        and _are((int, float), given.std, 3, 1e-6, 1e6)
        and _are(int, (given.pad_multiple,), 1, 1, MOST_PIXELS)
        and isinstance(given.bgr, bool)
        and isinstance(given.round_down, bool)
    )


def _are(kind: type | tuple[type, ...], values: Any, count: int, least: float, most: float) -> bool:
    is_row = isinstance(values, tuple) and len(values) == count
    return is_row and all(isinstance(value, kind) and least <= value <= most for value in values)


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
