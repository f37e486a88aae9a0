"""From another project's file to a detector: the one way that all origins share.

content -> recognised -> `File` -> described: `Found` -> built -> keys renamed, values changed -> loaded exactly -> card
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pyrafuse.backbones.weights import check_entries, unwrap_state
from pyrafuse.base.errors import CheckpointError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.state_dicts import find_weights, without_common_prefix
from pyrafuse.importers.class_names import Classes
from pyrafuse.importers.origins import Origin
from pyrafuse.importers.renaming import Naming, has_keys, load_renamed
from pyrafuse.models.building import build
from pyrafuse.models.describing import describe
from pyrafuse.models.detector import Detector
from pyrafuse.models.uninitialized import Uninitialized

MOST_WRAPPERS = 3
"""Attributes around a detector whose names are not known."""

State = dict[str, Tensor]
Changes = Mapping[str, Any]
"""Of a named model, as `describe` takes them."""


@dataclass(frozen=True)
class File:
    """A file of another project.

    Attributes:
        content: Everything in it, as `read_tensors` gives it.
        state: Its parameters, under the names that newer files have.
        source: Its path, for messages.
        published: The name that the model was published under, given by hand; None where none is given.
    """

    content: Any
    state: State
    source: str | os.PathLike[str]
    published: str | None = None

    @property
    def name(self) -> str:
        """What tells that which no key does: the name given by hand, else the file's own."""
        return Path(self.source).name if self.published is None else self.published

    def has(self, *patterns: str) -> bool:
        """See `has_keys`."""
        return has_keys(self.state, *patterns)

    def distinct(self, pattern: str) -> set[str]:
        """What the group of the regular expression ``pattern`` is in the keys that begin so: numbers of blocks, say."""
        return {found[1] for key in self.state if (found := re.match(pattern, key))}

    def shape(self, key: str, *, layout: str, ndim: int = 4, least: int = 1) -> tuple[int, ...]:
        """Shape of a parameter that a detector's sizes are told by.

        Args:
            key: The parameter.
            layout: What the file is taken for, in words, for messages.
            ndim: Dimensions that the parameter has; 4 is a convolution's weight.
            least: Smallest that its first dimension may be.

        Raises:
            CheckpointError: If the key is missing, or of another number of dimensions, or a dimension is smaller.
        """
        complaint = f"{self.source} looks like {layout}, but does not fit"
        if key not in self.state:
            raise CheckpointError(f"{complaint}; missing: {key}")
        shape = tuple(self.state[key].shape)
        if len(shape) != ndim or shape[0] < least or min(shape) < 1:
            raise CheckpointError(
                f"{complaint}; of another shape: {key} is {shape}, needs {ndim} dimensions, the first at least {least}"
            )
        return shape


@dataclass(frozen=True)
class Keys:
    """How the parameters of a detector of ours are found in a file; the attributes are arguments of `rename`."""

    naming: Naming
    aliases: Naming = str
    unused: Sequence[str] = ()
    change: Callable[[str, Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
        layout: The detector in words, for messages.
        model: Registered name of ours.
        edits: Changes of it, made one after the other.
        keys: (the detector built so) -> names of its parameters in the file.
        classes: Names and ids of the classes.
        preprocessing: Preprocessing of the images.
        origin: Origin of the weights in words, for the card.
    """

    layout: str
    model: str
    edits: Sequence[Changes]
    keys: Callable[[Detector], Keys]
    classes: Classes
    preprocessing: Preprocessing
    origin: str


@dataclass(frozen=True)
class Importer:
    """One origin of checkpoints.

    Attributes:
        origin: The origin in words.
        marks: Regular expressions; each matches some key of every file of this origin, and of no other, from its start.
        describe: Tells what a file of this origin holds; a `CheckpointError` where something is missing.
        renew: Gives the parameters of older files the names of newer ones.
        tells_all: Whether every file tells by itself what it is, so that no published name is taken.
    """

    origin: Origin
    marks: Sequence[str]
    describe: Callable[[File], Found]
    renew: Callable[[State], State] = dict
    tells_all: bool = False

    def recognizes(self, content: Any) -> bool:
        """Whether ``content``, as read from a file, is of this origin."""
        return has_keys(self.renew(unwrap_state(content)), *self.marks)

    def build(
        self, content: Any, *, source: str | os.PathLike[str], published: str | None = None, **changes: Any
    ) -> Detector:
        """The detector in ``content``, with its own preprocessing, thresholds and classes.

        Args:
            content: Content that `read_tensors` gave.
            source: Path of the file, for messages; its name is asked where keys do not tell enough.
            published: The name that the model was published under; it comes before the file's own.
            changes: Further changes of the model, as `describe` takes them.

        Raises:
            CheckpointError: If the file is of another origin, nothing tells how the model is used, a name contradicts
                the keys, or a key is missing, extra or of another shape: each is named as the file names it.
        """
        check_entries(content, source=source)
        if published is not None and self.tells_all:
            raise name_is_needless(source, published)
        content = next((reading for reading in read_wrapped(content) if self.recognizes(reading)), None)
        if content is None:
            raise CheckpointError(f"{source} is not of {self.origin.name}: {'; '.join(self.origin.layouts)}")
        file = File(content, self.renew(unwrap_state(content)), source, published)
        found = self.describe(file)
        detector = create(found.model, *found.edits, changes, num_classes=len(found.classes[0]))
        keys = found.keys(detector)
        counters = {key: value for key, value in detector.state_dict().items() if key.startswith("criterion.")}
        load_renamed(
            detector,
            {**file.state, **counters},  # what our criterion counts is in no file
            lambda key: key if key in counters else keys.naming(key),
            source=source,
            layout=found.layout,
            unused=keys.unused,
            aliases=keys.aliases,
            change=keys.change,
        )
        names, category_ids = found.classes
        detector.card = replace(
            detector.card,
            names=names,
            category_ids=category_ids,
            preprocessing=found.preprocessing,
            origin=found.origin,
        )
        return detector


def create(model: str, *edits: Changes, num_classes: int) -> Detector:
    """The named model with ``edits``, made one after the other; its parameters are still to be loaded."""
    first, *further = edits or ({},)
    spec = describe(model, num_classes=num_classes, **first)
    for edit in further:
        spec = describe(spec, **edit)
    with Uninitialized():
        detector = build(spec)
    detector.card = replace(detector.card, model=model)
    return detector


def name_is_needless(source: str | os.PathLike[str], published: str) -> CheckpointError:
    """The error for a published name where the file tells all by itself."""
    return CheckpointError(f"{source} tells by itself what it is; leave out the name {published!r}")


def read_wrapped(content: Any) -> Iterator[Mapping[str, Any]]:
    """``content`` with the one state dict that was chosen, and then without the first part that all its names share.

    Whoever trains puts the detector into an attribute of any name: ``retinanet.backbone.body...``.
    """
    kept = {key: content[key] for key in ("meta", "message_hub") if isinstance(content, Mapping) and key in content}
    entries = find_weights(content).entries
    for _ in range(MOST_WRAPPERS + 1):
        yield {**kept, "state_dict": entries}
        shorter = without_common_prefix(entries)
        if shorter.keys() == entries.keys():
            return
        entries = shorter
