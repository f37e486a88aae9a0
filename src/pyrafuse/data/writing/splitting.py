"""A data set divided into training, validation and test: groups of images -> the split that each one goes to.

Every class and every size of objects is divided in the wanted shares as well as whole groups allow.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError, PyrafuseError, check_between
from pyrafuse.base.printable import counted, printable
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.checks.sizes import LARGE_SIDE_PX, SMALL_SIDE_PX
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.problems import Reading

_NUM_SIZES = 3
_MOST_ROUNDS = 5


def split_reading(
    reading: Reading, shares: Mapping[str, float], *, seed: int = 0, groups: NDArray[np.int64] | None = None
) -> tuple[Reading, ...]:
    """Divide the images of ``reading``, so that each split has its share of every class and size of objects.

    Args:
        reading: All images.
        shares: Share of the images of each split; together 1.
        seed: Seed that decides between equals.
        groups: (N,) the group of each image; images of one group stay together. By default each is its own.

    Raises:
        DataError: If a split would get no image.
        PyrafuseError: If the shares are no shares.
    """
    records = reading.data.records
    check_between("seed", seed, 0)
    for name, share in shares.items():
        if not 0 < share < 1:
            raise PyrafuseError(f"the share of {name} is {share:g}; it must lie between 0 and 1")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise PyrafuseError(f"the shares {', '.join(f'{n} {s:g}' for n, s in shares.items())} must be 1 together")
    _, group_of = np.unique(np.arange(len(records)) if groups is None else groups, return_inverse=True)
    num_groups = int(group_of.max(initial=-1)) + 1
    if num_groups < len(shares):
        raise DataError(
            f"{counted(len(records), 'image')} in {counted(num_groups, 'group')} cannot be divided into {len(shares)} "
            "splits; each split needs a group of its own"
        )
    kinds = np.zeros((num_groups, len(reading.data.names) * _NUM_SIZES + 1), np.int64)
    np.add.at(kinds, group_of, count_kinds(records, len(reading.data.names)))
    split_of = _stratify(kinds, np.array([*shares.values()]), np.random.default_rng(seed))
    problems = [reading.problems, *[()] * (len(shares) - 1)]  # they stay with the first
    parts = []
    for number, name in enumerate(shares):
        kept = tuple(records[i] for i in np.flatnonzero(split_of[group_of] == number).tolist())
        data = replace(reading.data, records=kept, split=name)
        parts.append(replace(reading, data=data, problems=problems[number], unkept={} if number else reading.unkept))
    return tuple(parts)


def tell_shares(parts: Sequence[Reading]) -> str:
    """A table for people: the objects of each class in each split, and the share of the class."""
    names = parts[0].data.names
    labels = [np.concatenate([np.zeros(0, np.int64), *(r.labels for r in part.data.records)]) for part in parts]
    counts = np.stack([np.bincount(each, minlength=len(names)) for each in labels], axis=1)
    rows = [("class", *(part.data.split for part in parts))]
    for name, row in zip(names, counts.tolist(), strict=True):
        total = max(sum(row), 1)
        rows.append((printable(name, limit=40), *(f"{count} ({count / total:.0%})" for count in row)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def count_kinds(records: Sequence[ImageRecord], num_classes: int) -> NDArray[np.int64]:
    """(N, 3 K + 1) the objects of each class and size (small, medium, large) of each image, and 1 for the image."""
    counts = np.zeros((len(records), num_classes * _NUM_SIZES + 1), np.int64)
    counts[:, -1] = 1
    for row, record in enumerate(records):
        sides = np.sqrt(record.areas)
        kinds = record.labels * _NUM_SIZES + np.digitize(sides, (SMALL_SIDE_PX, LARGE_SIDE_PX))
        counts[row, :-1] = np.bincount(kinds, minlength=num_classes * _NUM_SIZES)
    return counts


def group_by_name(records: Sequence[ImageRecord], pattern: str) -> tuple[NDArray[np.int64], int]:
    """(N,) the group of each image by what ``pattern`` finds in its path, and how many paths it finds nothing in.

    What its parentheses hold is the group, or the whole of what it finds where it has none. An image in whose path it
    finds nothing is a group of its own.

    Raises:
        PyrafuseError: If ``pattern`` is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PyrafuseError(f"--group {pattern!r} is no regular expression: {error}; see Python's module re") from error
    keys: dict[tuple[str | None, ...], int] = {}
    groups, num_alone = np.zeros(len(records), np.int64), 0
    root = os.path.commonpath([record.path.absolute().parent for record in records]) if records else ""
    for row, record in enumerate(records):
        found = compiled.search(record.path.absolute().relative_to(root).as_posix())
        key = (found.groups() or (found[0],)) if found else (None, str(row))
        num_alone += found is None
        groups[row] = keys.setdefault(key, len(keys))
    return groups, num_alone


def join_groups(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the groups of images that share a group of ``one`` or of ``other``, directly or by way of others."""
    first = np.arange(len(one))
    while True:
        lowest = first
        for groups in (one, other):
            _, number = np.unique(groups, return_inverse=True)
            least = np.full(int(number.max(initial=-1)) + 1, len(one))
            np.minimum.at(least, number, lowest)
            lowest = least[number]
        if (lowest == first).all():
            return first
        first = lowest


def join_splits(readings: Sequence[Reading]) -> Reading:
    """All images of all splits as one; an image that several splits hold is taken once."""
    joined = join_readings(readings)
    by_path = {record.path: record for record in reversed(joined.data.records)}
    records = tuple(record for record in joined.data.records if by_path.pop(record.path, None) is record)
    return replace(joined, data=replace(joined.data, records=records))


def _stratify(kinds: NDArray[np.int64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(G,) the split of each group, from (G, S) counts; each split gets a group at least.

    What is minimised is the sum, over splits and kinds, of the squared distance from the wanted count over that count:
    groups that hold most of what is rare choose first, and later each may change its split, until none does.
    """
    totals = kinds.sum(axis=0)
    kinds, totals = kinds[:, totals > 0], totals[totals > 0]
    wanted = shares[:, None] * totals
    weights = 1 / wanted
    weights[:, -1] *= kinds.shape[1]  # the number of images counts as much as all kinds of objects together
    held = np.zeros_like(wanted)

    def choose(group: int) -> int:
        more = kinds[group] * (2 * (held - wanted) + kinds[group]) * weights
        return int(more.sum(axis=1).argmin())

    order = rng.permutation(len(kinds))
    order = order[np.argsort(-(kinds[order] / totals).sum(axis=1), kind="stable")]
    split_of = np.full(len(kinds), -1)
    for _ in range(_MOST_ROUNDS):
        before = split_of.copy()
        for group in order.tolist():
            if split_of[group] >= 0:
                held[split_of[group]] -= kinds[group]
            split_of[group] = choose(group)
            held[split_of[group]] += kinds[group]
        if (split_of == before).all():
            break
    for part in np.flatnonzero(np.bincount(split_of, minlength=len(shares)) == 0):
        donors = np.flatnonzero(split_of == np.bincount(split_of, minlength=len(shares)).argmax())
        split_of[donors[kinds[donors, -1].argmin()]] = part
    return split_of
