"""Detectors in files of our own: saved whole, read safely."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyrafuse.backbones.weights import load_exactly
from pyrafuse.base.card import CARD_KEY, Card, read_card
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.printable import printable
from pyrafuse.base.registry import FILLING
from pyrafuse.base.spec import DetectorSpec, read_spec
from pyrafuse.core.state_dicts import find_weights
from pyrafuse.models.building import rebuild
from pyrafuse.models.detector import Detector
from pyrafuse.models.earlier_cards import flatten_chain, read_earlier
from pyrafuse.models.uninitialized import Bounded, Uninitialized
from pyrafuse.necks.graph_text import is_graph_file

BEYOND = 2**26
"""Values that a detector may have beyond twice those that its checkpoint stores, before it is found not to fit."""


def card_from_dict(values: Mapping[str, Any]) -> Card:
    """The inverse of `card_to_dict`; a card opens nothing, wherever it says so.

    Raises:
        TypeError: If a value is missing or of a wrong kind.
        PyrafuseError: If what it describes is no detector, or a graph's file stands in place of its text.
    """
    fields = dict(values)
    spec = _read_earlier(fields) if "options" in fields else read_spec(fields.get("spec"))
    _refuse_files(spec.to_plain())
    return read_card({**fields, "spec": spec})


def _read_earlier(fields: dict[str, Any]) -> DetectorSpec:
    """The description of an earlier card, whose ``options`` and ``defaults`` go out of ``fields``."""
    options, defaults = fields.pop("options"), fields.pop("defaults", None)
    if not isinstance(options, Mapping) or not isinstance(defaults, Mapping | None):
        raise TypeError(f"options {options!r} and defaults {defaults!r}")
    _refuse_files((options, defaults))
    return read_earlier(fields["model"], options, defaults)


def _refuse_files(value: Any) -> None:
    """Refuse a graph's file, which a part would open."""
    if isinstance(value, Mapping):
        value = tuple(inner for key, inner in value.items() if key not in FILLING)
    if isinstance(value, list | tuple):
        for inner in value:
            _refuse_files(inner)
    elif isinstance(value, str) and is_graph_file(value):
        raise CheckpointError(f"its card names the file {value!r}, and a checkpoint holds the text of its graphs")


def save(detector: Detector, path: str | os.PathLike[str]) -> None:
    """Write the detector's weights and card to ``path``: all that `load` needs.

    Raises:
        PyrafuseError: If the file cannot be written; nothing half-written is left.
    """
    detector.save(path)


def is_own(content: Any) -> bool:
    """Whether ``content``, as read from a file, is a checkpoint of a training here or of `save`."""
    return isinstance(content, Mapping) and CARD_KEY in content


def card_of(content: Any, *, source: str | os.PathLike[str]) -> Card:
    """The card in the ``content`` of one of our own checkpoints; no detector is built.

    Raises:
        CheckpointError: If there is none, or a value in it is missing or of a wrong kind.
    """
    with _describing(source):
        return card_from_dict(_mapping_at(_mapping_at(content, CARD_KEY), "card"))


@contextmanager
def _describing(source: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{source} describes no detector, missing or of a wrong kind: {printable(error, limit=400)}; take another "
            "checkpoint, or save the detector anew"
        ) from error
    except PyrafuseError as error:
        raise CheckpointError(f"{source}: {error}") from error


def build_own(content: Mapping[str, Any], *, source: str | os.PathLike[str]) -> Detector:
    """Make a detector of the ``content`` of one of our own checkpoints.

    Raises:
        CheckpointError: If a part cannot be built, or it does not fit its own description.
    """
    card = card_of(content, source=source)
    with _describing(source):
        state = find_weights({"state_dict": _mapping_at(content, "state_dict")}).entries
    try:
        with Bounded(2 * sum(value.numel() for value in state.values()) + BEYOND), Uninitialized():
            detector = rebuild(card)
    except (PyrafuseError, ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError) as error:
        raise CheckpointError(f"{source} needs a part that cannot be built: {printable(error, limit=800)}") from error
    load_exactly(detector, flatten_chain(state), source=source)
    if card.names and len(card.names) != card.num_classes:
        raise CheckpointError(
            f"{source} names {len(card.names)} classes, and its detector tells {card.num_classes} apart"
        )
    return detector


def _mapping_at(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if not isinstance(inner := values.get(key), Mapping):
        raise TypeError(f"{key} {inner!r}")
    return inner
