"""Splits that differ: classes and sizes of their objects -> distances -> tests by drawing the validation images anew.

Objects of one image resemble each other, so whole images are drawn: a test that took objects for independent ones would
find differences everywhere.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.members import folder_of
from pyrafuse.base.printable import printable
from pyrafuse.base.records import DetectionData
from pyrafuse.data.checks.boxes import Objects
from pyrafuse.data.reading.problems import Problem

NUM_DRAWS = 500
"""Draws of a test."""

MOST_SURE = 0.01
"""Share of the draws that are as different as the splits, below which the splits differ by more than chance."""

LEAST_DISTANCE = 0.1
"""Distance, 0 to 1, below which a difference does not matter, chance or not."""

_LEAST_IMAGES, _LEAST_OBJECTS = 10, 30


def find_differences(train: DetectionData, val: DetectionData, *, seed: int = 0) -> list[Problem]:
    """Tell if the classes, or the sizes, of the objects differ between the splits by more than chance and by much.

    Args:
        train: Training images.
        val: Validation images.
        seed: Seed of the draws.
    """
    objects = Objects.of([*train.records, *val.records])
    kept = ~objects.crowd & (objects.sides > 0).all(axis=1)
    images, labels = objects.images[kept], objects.labels[kept]
    shares = np.sqrt(objects.sides[kept].prod(axis=1) / objects.frames[kept].prod(axis=1))
    in_val = np.arange(len(objects.records)) >= len(train)
    counts = np.bincount(in_val[images], minlength=2)
    if min(len(train), len(val)) < _LEAST_IMAGES or counts.min() < _LEAST_OBJECTS:
        return []
    order = np.argsort(shares, kind="stable")
    tests: tuple[tuple[str, Callable[[NDArray[np.bool_]], float], Callable[[], str]], ...] = (
        (
            "classes",
            lambda drawn: _class_distance(labels, drawn[images], len(train.names)),
            lambda: _tell_classes(labels, in_val[images], train.names),
        ),
        (
            "sizes",
            lambda drawn: _size_distance(drawn[images[order]]),
            lambda: _tell_sizes(shares, in_val[images]),
        ),
    )
    problems = []
    for what, measure, tell in tests:
        rng, distance = np.random.default_rng(seed), measure(in_val)
        if distance < LEAST_DISTANCE:
            continue
        drawn = np.array([measure(rng.permutation(in_val)) for _ in range(NUM_DRAWS)])
        sure = (1 + np.count_nonzero(drawn >= distance)) / (1 + NUM_DRAWS)
        if sure < MOST_SURE:
            problems.append(
                Problem("hint", f"splits that differ in {what}", folder_of(train.records[0].path),
                        f"splits {train.split} and {val.split}",
                        f"{tell()} (distance {distance:.2f} of 1; {np.median(drawn):.2f} where validation images are "
                        f"drawn at random, p = {sure:.3f})",
                        "figures of validation then tell of other images than training has; `pyrafuse data split` "
                        "divides evenly")
            )  # fmt: skip
    return problems


def _class_distance(labels: NDArray[np.int64], is_val: NDArray[np.bool_], num_classes: int) -> float:
    """Total variation: the share of one split's objects that would need another class to be as in the other split."""
    counts = np.bincount(labels + num_classes * is_val, minlength=2 * num_classes).reshape(2, -1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _size_distance(is_val: NDArray[np.bool_]) -> float:
    """Kolmogorov and Smirnov's distance: the largest difference of the shares of objects below any size.

    Args:
        is_val: Whether each object is one for validation, the smallest object first.
    """
    num_val = np.cumsum(is_val)
    num_train = np.arange(1, len(is_val) + 1) - num_val
    return float(np.abs(num_val / max(num_val[-1], 1) - num_train / max(num_train[-1], 1)).max())


def _tell_classes(labels: NDArray[np.int64], is_val: NDArray[np.bool_], names: tuple[str, ...]) -> str:
    counts = np.stack([np.bincount(labels[is_val == of], minlength=len(names)) for of in (False, True)])
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    most = np.argsort(-np.abs(shares[0] - shares[1]), kind="stable")[:3].tolist()
    told = [f"{printable(names[k], limit=60)} {shares[0, k]:.0f} % and {shares[1, k]:.0f} %" for k in most]
    return f"of the objects in training and in validation are {', '.join(told)}"


def _tell_sizes(shares: NDArray[np.float64], is_val: NDArray[np.bool_]) -> str:
    middle = [100 * float(np.median(shares[is_val == of])) for of in (False, True)]
    return (
        f"half of the objects' sides are below {middle[0]:.2g} % of the image's in training, and below "
        f"{middle[1]:.2g} % in validation"
    )
