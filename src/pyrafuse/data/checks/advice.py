"""What the objects of a data set ask of a training, with reasons in figures: size, levels, epochs, rare classes.

Figures of the data -> a sentence each, and the settings that follow from it. Rules of thumb: they start from what a
detector with a finest stride of 8 sees, and change nothing where the objects give no reason to.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.report import Advice
from pyrafuse.data.checks.sizes import find_shapes
from pyrafuse.data.loading.balancing import count_images

HIDDEN_PX = 8
"""Side below which an object is hard to find: one cell of the finest usual level."""

SIZES = (320, 416, 512, 640, 800, 960, 1280)
"""Sides of the input that are weighed."""

MOST_HIDDEN = 0.05
"""Share of the objects that may be under `HIDDEN_PX`."""

LARGEST_STEP = 2
"""So many times as large a side at most: the time of an epoch grows by its square."""

TILE_OVERLAP = 0.2

FINE_CELLS, COARSE_CELLS = 1.5, 16
"""Objects under so many cells of the finest level want a finer one; those over so many of the coarsest, a coarser."""

MANY = 0.2
"""Share of the objects for which a level pays."""

FEWEST_STEPS = 1000
"""Optimiser steps below which a training from ImageNet weights ends too early."""

MANY_IMAGES, EPOCHS_OF_MANY, MOST_EPOCHS = 20_000, 12, 300

RARE_SHARE, RARE_RATIO = 0.2, 8
"""A class in fewer of the images, and with so many times fewer objects than the most frequent, is rare."""


def advise_size(data: DetectionData, preprocessing: Preprocessing) -> Advice:
    """The size of the input: the smallest at which few objects are hidden, or what tiles would give."""
    now = min(preprocessing.size)
    sizes = sorted({now, min(LARGEST_STEP * now, SIZES[0]), *SIZES})
    hidden = {size: _share_under(_sides_at(data, preprocessing, size), HIDDEN_PX) for size in sizes}
    table = ", ".join(f"{size} px {_percent(share)}" for size, share in hidden.items())
    figures = f"objects under {HIDDEN_PX} px: {table}"
    if hidden[now] <= MOST_HIDDEN:
        return Advice("size", f"{now} px is enough; {figures}")
    larger = [size for size in hidden if now < size <= LARGEST_STEP * now]
    fitting = [size for size in larger if hidden[size] <= MOST_HIDDEN] or larger[-1:]
    tiles = _describe_tiles(data, fitting[0] if fitting else now)
    if not fitting or hidden[fitting[0]] > 0.8 * hidden[now]:
        return Advice("size", f"{now} px hides objects, and a larger size helps little; {figures}; {tiles}")
    size = fitting[0]
    left = f"; {tiles}" if hidden[size] > MOST_HIDDEN else ""
    cost = f"an epoch takes about {(size / now) ** 2:.1f} times as long"
    return Advice("size", f"{size} px instead of {now}: {cost}; {figures}{left}", (("data.size", size),))


def _describe_tiles(data: DetectionData, tile: int) -> str:
    frames = np.array([(record.width, record.height) for record in data.records], np.float64)
    step = tile * (1 - TILE_OVERLAP)
    count = float(np.ceil(np.maximum((frames - tile) / step, 0) + 1).prod(axis=1).mean())
    sides = [np.sqrt((r.boxes[:, 2:] - r.boxes[:, :2])[~r.crowd].prod(axis=1)) for r in data.records]
    share = _share_under(np.concatenate(sides), HIDDEN_PX)
    return (
        f"tiles of {tile} px out of the whole images would leave {_percent(share)} under {HIDDEN_PX} px, "
        f"with {count:.1f} tiles an image"
    )


def advise_levels(data: DetectionData, preprocessing: Preprocessing, strides: Sequence[int]) -> Advice:
    """The levels of the pyramid: a finer or coarser one, and those that stand idle."""
    sides = np.sqrt(find_shapes(data, preprocessing).prod(axis=1))
    finest, coarsest = strides[0], strides[-1]
    fine, coarse = FINE_CELLS * finest, COARSE_CELLS * coarsest
    below, above = _share_under(sides, fine), 1 - _share_under(sides, coarse)
    names = ", ".join(map(str, strides))
    figures = (
        f"at {min(preprocessing.size)} px {_percent(below)} of the objects are under {fine:g} px, and "
        f"{_percent(above)} over {coarse:g} px"
    )
    if below > MANY and finest > 4:
        text = f"a level of stride {finest // 2} (P{_number(finest) - 1}) beside {names}: {figures}; it takes longer"
        return Advice("levels", text, (("strides", (finest // 2, *strides)),))
    if above > MANY:
        return Advice(
            "levels", f"a level of stride {2 * coarsest} (P{_number(coarsest) + 1}) beside {names}: {figures}"
        )
    idle = [stride for stride in strides[1:] if len(sides) and _share_under(sides, 2.0 * stride) > 0.995]
    spare = f"; no object is large enough for stride {', '.join(map(str, idle))}" if idle else ""
    return Advice("levels", f"strides {names} fit, neither P{_number(finest) - 1} nor P{_number(coarsest) + 1} is "
                  f"needed: {figures}{spare}")  # fmt: skip


def advise_epochs(num_images: int, *, epochs: int, batch_size: int) -> Advice:
    """The number of epochs, by the optimiser steps that they come to."""
    steps = max(-(-num_images // batch_size), 1)
    makes, ending = "makes" if epochs == 1 else "make", "" if epochs * steps == 1 else "s"
    total = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')} {makes} {epochs * steps:,} step{ending}"
    if num_images > MANY_IMAGES and epochs > EPOCHS_OF_MANY:
        text = f"{EPOCHS_OF_MANY} instead of {epochs}: {total}, more than {num_images:,} images need"
        return Advice("epochs", text, (("run.epochs", EPOCHS_OF_MANY),))
    wanted = min(-(-FEWEST_STEPS // steps), MOST_EPOCHS)
    if wanted > epochs:
        text = f"{wanted} instead of {epochs}: {total}, and a detector needs about {FEWEST_STEPS:,}"
        return Advice("epochs", text, (("run.epochs", wanted),))
    return Advice("epochs", f"{epochs} {'is' if epochs == 1 else 'are'} enough: {total}")


def advise_balance(data: DetectionData) -> Advice:
    """Images of rare classes more often, and more weight for their objects, where there are any."""
    present = [record.labels[~record.crowd] for record in data.records]
    objects = np.bincount(np.concatenate([np.zeros(0, np.int64), *present]), minlength=len(data.names))
    images = np.bincount(np.concatenate([np.zeros(0, np.int64), *map(np.unique, present)]), minlength=len(data.names))
    known = np.flatnonzero(objects)
    if len(known) < 2:
        return Advice("classes", "nothing to balance: there are not two classes with objects")
    rarest = int(known[np.argmin(images[known])])
    share, ratio = images[rarest] / len(data), objects.max() / objects[rarest]
    figures = (
        f"{printable(data.names[rarest])} is in {images[rarest]} of {len(data):,} training images ({_percent(share)}), "
        f"and the most frequent class has {ratio:.0f} times its objects"
    )
    if share >= RARE_SHARE or ratio < RARE_RATIO:
        return Advice("classes", f"balanced enough: {figures}")
    threshold = float(f"{min(4 * share, RARE_SHARE):.2g}")  # images of the rarest class come twice at most
    count = count_images(data, threshold)
    text = (
        f"images of rare classes more often, and more weight for their objects: {figures}; an epoch then has {count:,} "
        "images"
    )
    return Advice("classes", text, (("data.repeat_threshold", threshold), ("data.class_weights", "balanced")))


def _sides_at(data: DetectionData, preprocessing: Preprocessing, size: int) -> NDArray[np.float64]:
    return np.sqrt(find_shapes(data, preprocessing.at_size(size)).prod(axis=1))


def _share_under(sides: NDArray[np.float64], bound: float) -> float:
    return float((sides < bound).mean()) if len(sides) else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def _number(stride: int) -> int:
    """Of the level P3 with a stride of 8, say."""
    return int(np.log2(stride))
