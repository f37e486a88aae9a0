"""What an exported detector says of itself: what it takes, what it gives, and its card.

card, `Interface` -> texts that lie in the file -> card, `Interface`, without torch
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal, get_args

from pyrafuse.base.card import MOST_PIXELS, Card, card_to_dict, read_card
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.printable import printable

METADATA_KEY = "pyrafuse"
"""The entry of a file's metadata that holds card and interface, as JSON."""

VERSION = 1
"""Number of the form in which they are written."""

MOST_BYTES = 2**24
"""Length of metadata that is read."""

MOST_COUNT = 2**20
"""Most images at a time, pixels of a stride and detections an image."""

Input = Literal["image", "fitted", "scaled", "tensor"]
Output = Literal["nms", "rows", "raw", "levels"]
Precision = Literal["fp32", "fp16", "int8"]
Threshold = Literal["after", "input", "fixed"]

DETECTION_OUTPUTS = ("boxes", "scores", "labels", "levels", "rows", "count")
"""Names of what ``nms`` gives."""


@dataclass(frozen=True)
class Interface:
    """What an exported file takes and gives.

    Attributes:
        input: ``image``: ``images`` uint8 RGB (B, H, W, 3) of any size, which the graph resizes, pads and normalises.
            ``fitted``: the same already of the network's size, which the graph normalises. ``scaled``: float32 RGB
            (B, 3, H, W) of the network's size in 0..1, which the graph normalises; each image takes up all of it.
            ``tensor``: float32 normalised (B, 3, H, W). ``fitted`` and ``tensor`` take ``sizes`` int64 (B, 2), height
            and width of what each image takes up, where ``takes_sizes``.
        output: ``nms``: `DETECTION_OUTPUTS`: boxes (B, K, 4) xyxy, scores, labels, levels and rows (B, K), of which the
            first ``count`` (B,) hold something. ``rows``: ``output`` (B, N, 6) of x1, y1, x2, y2, score and class.
            ``raw``: ``output0`` (B, 4 + classes, N) of centre, width, height and scores. ``levels``: a map (B, C, h, w)
            per level of classes, deltas and quality. Boxes are in pixels of the image for the input ``image``, else in
            pixels of the network's input. Only ``nms`` suppresses.
        size: Height and width of the network's input in pixels; None where they are free multiples of ``stride``.
        batch: Images at a time; 0 where it is free.
        stride: Pixels that both sides of the network's input are multiples of.
        precision: Kind of numbers that the network computes in.
        score: Least score that ``nms`` and ``rows`` keep.
        nms_iou: Overlap above which two boxes of a class are one object.
        max_detections: K of ``nms``.
        takes_sizes: Whether there is an input ``sizes``.
        threshold: How a higher score than ``score`` is applied. ``after``: by leaving out what scores less. ``input``:
            by ``score`` float32 (B,), the least score of each image. ``fixed``: it cannot be.
    """

    input: Input = "image"
    output: Output = "nms"
    size: tuple[int, int] | None = None
    batch: int = 0
    stride: int = 32
    precision: Precision = "fp32"
    score: float = 0.001
    nms_iou: float = 0.5
    max_detections: int = 100
    takes_sizes: bool = False
    threshold: Threshold = "after"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs in their order."""
        given = {"images": True, "sizes": self.takes_sizes, "score": self.threshold == "input"}
        return tuple(name for name, is_taken in given.items() if is_taken)

    def __post_init__(self) -> None:
        for name, (is_right, allowed) in self._checks().items():
            if not is_right:
                value = printable(repr(getattr(self, name)), limit=100)
                raise PyrafuseError(f"an exported detector cannot have this {name}: {value}; allowed is {allowed}")

    def _checks(self) -> dict[str, tuple[bool, str]]:
        """By name, whether the value is right, and which values are."""
        words = {"input": Input, "output": Output, "precision": Precision, "threshold": Threshold}
        numbers = {"batch": 0, "stride": 1, "max_detections": 0}
        size, given = self.size, vars(self)
        return {
            **{name: (given[name] in get_args(kind), ", ".join(get_args(kind))) for name, kind in words.items()},
            "size": (
                size is None
                or (len(size) == 2 and all(type(side) is int and 0 < side <= MOST_PIXELS for side in size)),
                f"height and width of 1 to {MOST_PIXELS} pixels, or none",
            ),
            **{
                name: (type(given[name]) is int and least <= given[name] <= MOST_COUNT, f"{least} to {MOST_COUNT}")
                for name, least in numbers.items()
            },
            **{
                name: (isinstance(given[name], int | float) and 0 <= given[name] <= 1, "0 to 1")
                for name in ("score", "nms_iou")
            },
            "takes_sizes": (isinstance(self.takes_sizes, bool), "true or false"),
        }

    def tell(self) -> str:
        """In words: what goes in and comes out."""
        kinds = {
            "image": "RGB bytes of any size",
            "fitted": "RGB bytes",
            "scaled": "RGB in 0..1",
            "tensor": "normalised floats",
        }
        free = f"any multiple of {self.stride} px"
        size = free if self.size is None else "{} x {} px".format(*self.size)
        batch = f"{self.batch} at a time" if self.batch else "any batch"
        network = "" if self.input != "image" else ", resized in the graph"
        taken = ", ".join((f"{self.input} ({kinds[self.input]}{network}, {size}, {batch})", *self.inputs[1:]))
        return f"{self.precision}, {taken} -> {self.output}"


def write_metadata(card: Card, interface: Interface) -> dict[str, str]:
    """Texts by name, for the file: those that other loaders read, and our own as JSON under `METADATA_KEY`."""
    names = card.names or tuple(map(str, range(card.num_classes)))
    own = {"version": VERSION, "card": card_to_dict(card), "interface": asdict(interface)}
    return {
        "description": f"{card.model or 'detector'} exported by pyrafuse",
        "author": "pyrafuse",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("pyrafuse"),
        "license": "of the weights: see where they come from",
        "stride": str(interface.stride),
        "task": "detect",
        "batch": str(interface.batch or 1),
        "imgsz": str(list(interface.size or card.preprocessing.size)),
        "names": str(dict(enumerate(names))),
        "channels": "3",
        "args": str(
            {
                "batch": interface.batch or 1,
                "dynamic": interface.size is None,
                "half": interface.precision == "fp16",
                "int8": interface.precision == "int8",
                "nms": interface.output == "nms",
            }
        ),
        METADATA_KEY: json.dumps(own),
    }


def read_metadata(texts: Mapping[str, str], *, source: object) -> tuple[Card, Interface]:
    """Card and interface from the metadata of a file.

    Args:
        texts: Metadata by name; what is not ours is passed over.
        source: The file, for messages.

    Raises:
        CheckpointError: If there is none of ours, or it is damaged or of a later version.
    """
    text = texts.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{source} was not exported by pyrafuse: its metadata has no {METADATA_KEY!r}; export it with pyrafuse "
            "export MODEL -o FILE"
        )
    if len(text) > MOST_BYTES:
        raise CheckpointError(f"{source} describes itself in {len(text)} letters; {MOST_BYTES} are read at most")
    try:
        own = json.loads(text)
        if own["version"] > VERSION:
            raise CheckpointError(
                f"{source} was exported by a later pyrafuse (form {own['version']}, this one reads {VERSION}): update "
                "pyrafuse, or export anew"
            )
        given: dict[str, Any] = dict(own["interface"])
        given["size"] = None if given["size"] is None else tuple(given["size"])
        card, interface = read_card(own["card"]), Interface(**given)
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{source} describes itself wrongly: {printable(error, limit=400)}; export it anew"
        ) from error
    if card.names and len(card.names) != card.num_classes:
        raise CheckpointError(
            f"{source} names {len(card.names)} classes, and its detector tells {card.num_classes} apart: export it anew"
        )
    return card, interface
