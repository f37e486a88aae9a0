"""The summary of a training before its first epoch: one row for each fact, as soon as it is known.

data -> objects -> advice -> model -> start -> batch -> precision -> output -> time
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from rich.console import Console

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.sizes import find_shapes
from pyrafuse.data.formats.layout import Splits
from pyrafuse.data.loading.balancing import class_weights, repeat_factors
from pyrafuse.data.loading.batching import count_repeated
from pyrafuse.data.loading.tiling import Tiles
from pyrafuse.training.loop import Course
from pyrafuse.training.progress import duration
from pyrafuse.training.settings import DataSettings

WIDTH = 11
"""Letters of the longest label and a space."""

HIDDEN_PX, SMALL_PX = 8, 32
"""Sides below which an object is hard to find on the finest usual level, and below which it is small for COCO."""


class Screen:
    """Rows of a label and a text.

    Args:
        console: Console that they go to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def tell(self, label: str, text: str) -> None:
        """Print a row."""
        self._console.print(f"{label:<{WIDTH}}{text}", highlight=False, markup=False)

    def teller(self, label: str) -> Callable[[str], None]:
        """What prints rows of ``label``."""
        return partial(self.tell, label)


def describe_objects(data: DetectionData, preprocessing: Preprocessing) -> str:
    """How many objects there are to learn from, and how large they are for the network."""
    sides = np.sqrt(find_shapes(data, preprocessing).prod(axis=1))
    if not len(sides):
        return "none in the training images"
    height, width = preprocessing.size
    size = f"{height} px" if height == width else f"{height} x {width} px"
    hidden, small = (100 * float(np.mean(sides < bound)) for bound in (HIDDEN_PX, SMALL_PX))
    return (
        f"{len(sides):,} in the training images; at {size} half of them are under {np.median(sides):.0f} px, "
        f"{small:.0f} % under {SMALL_PX} px and {hidden:.0f} % under {HIDDEN_PX} px"
    )


def describe_tiles(tiles: Tiles, before: Splits) -> str:
    """How many tiles there are, how many of them hold nothing, and what none of them shows."""
    records = tiles.splits.train.records
    num_empty = sum(bool(record.crowd.all()) for record in records)
    hidden = f"; {counted(tiles.num_hidden, 'object')} larger than what tiles show are not learnt: give a larger --tile"
    return (
        f"{len(records):,} of {counted(len(before.train), 'training image')}, {num_empty:,} without an object, and "
        f"{len(tiles.splits.val):,} of {counted(len(before.val), 'validation image')}"
        f"{hidden if tiles.num_hidden else ''}"
    )


def describe_balance(data: DetectionData, settings: DataSettings) -> Iterator[str]:
    """What is done for rare classes; nothing where nothing is.

    Raises:
        PyrafuseError: If a weight is given for a class that is not in the data.
    """
    factors = None
    if settings.repeat_threshold:
        factors = repeat_factors(data, settings.repeat_threshold)
        yield (
            f"an epoch has {count_repeated(factors):,} images of {len(data):,}; those of the rarest class come "
            f"{factors.max():.1f} times"
        )
    weights = class_weights(data, settings.class_weights, factors)
    if weights is not None:
        each = (f"{printable(data.names[row])} {weights[row]:.2g}" for row in (weights.argmin(), weights.argmax()))
        yield f"the class loss weighs objects from {' to '.join(each)}"


def describe_batches(course: Course) -> str:
    """Images of a step, how they are shared out, and how many batches there are."""
    run, place, steps = course.recipe.run, course.place, len(course.batches)
    parts = f" in {run.accumulate} parts" if run.accumulate > 1 else ""
    return (
        f"{counted(run.batch_size, 'image')} a step{parts}, {counted(run.epochs, 'epoch')} of "
        f"{counted(steps, 'batch', 'batches')}, on {place.world_size} x {place.device.type.upper()}"
    )


def describe_time(epoch_s: float, run_s: float, *, epochs: int) -> str:
    """How long the training takes, from what was measured before it."""
    return (
        f"about {duration(epoch_s)} an epoch, {duration(run_s)} for {epochs} with validations; losses and loading are "
        "not counted"
    )
