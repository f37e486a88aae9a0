"""Readings put together: of several files of one split, or of several data sets, under the classes of all of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pyrafuse.data.reading.problems import Reading


def share_classes(readings: Sequence[Reading]) -> list[Reading]:
    """The readings with one list of classes: those of the first, and after them what each other one adds.

    A class is the same where its name is. It has the id of the first reading that knows it; an id that is taken
    already gives way to a free one.
    """
    names = tuple(dict.fromkeys(name for reading in readings for name in reading.data.names))
    if all(reading.data.names == names for reading in readings):
        ids = readings[0].data.category_ids if readings else ()
    else:
        ids = _choose_ids(readings, names)
    label_of = {name: label for label, name in enumerate(names)}
    shared = []
    for reading in readings:
        data = reading.data
        labels = np.array([label_of[name] for name in data.names], np.int64)
        if data.names != names:
            data = replace(data, records=tuple(replace(r, labels=labels[r.labels]) for r in data.records))
        shared.append(replace(reading, data=replace(data, names=names, category_ids=ids)))
    return shared


def join_readings(readings: Sequence[Reading]) -> Reading:
    """One reading of all of ``readings``, which are not none; images are numbered anew where two have the same id."""
    shared = share_classes(readings)
    records = [record for reading in shared for record in reading.data.records]
    if len({record.image_id for record in records}) < len(records):
        records = [replace(record, image_id=row) for row, record in enumerate(records)]
    unkept: dict[str, int] = {}
    for reading in shared:
        for what, count in reading.unkept.items():
            unkept[what] = unkept.get(what, 0) + count
    return Reading(
        data=replace(shared[0].data, records=tuple(records)),
        problems=tuple(problem for reading in shared for problem in reading.problems),
        groups=tuple(dict.fromkeys(group for reading in shared for group in reading.groups)),
        unkept=unkept,
    )


def _choose_ids(readings: Sequence[Reading], names: Sequence[str]) -> tuple[int | str, ...]:
    given: dict[str, int | str] = {}
    for reading in readings:
        for name, category_id in zip(reading.data.names, reading.data.category_ids, strict=True):
            given.setdefault(name, category_id)
    numbers = [i for i in given.values() if isinstance(i, int)]
    free = max(numbers, default=-1) + 1
    ids: dict[str, int | str] = {}
    for name in names:
        category_id = given[name]
        if category_id in ids.values():
            category_id, free = free, free + 1
        ids[name] = category_id
    return tuple(ids[name] for name in names)
