"""Classes that only group others, as Roboflow's class 0 does: readings -> the same without them."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyrafuse.base.members import folder_of
from pyrafuse.data.reading.problems import Problem, Reading


def find_groups(categories: Sequence[Mapping[str, Any]], used_names: Container[str]) -> tuple[str, ...]:
    """The categories without an object that are the ``supercategory`` of another one, capitals and spaces apart."""
    names = [str(category.get("name")) for category in categories]
    given = [(name, c["supercategory"]) for c, name in zip(categories, names, strict=True) if c.get("supercategory")]
    above = {_fold(group) for name, group in given if _fold(group) != _fold(name)}
    return tuple(dict.fromkeys(name for name in names if _fold(name) in above and name not in used_names))


def _fold(name: Any) -> str:
    return str(name).strip().casefold()


def leave_out_groups(readings: Sequence[Reading]) -> list[Reading]:
    """Leave out the classes that are groups in each split which lists them, and say so.

    A class with an object in any split stays in all, and so do the classes of a split that lists groups only.
    """
    used = {name for reading in readings for name in reading.data.names if name not in reading.groups}
    return [_without(reading, [name for name in reading.groups if name not in used]) for reading in readings]


def _without(reading: Reading, groups: Sequence[str]) -> Reading:
    data = reading.data
    kept = [label for label, name in enumerate(data.names) if name not in groups]
    if not groups or not kept:
        return reading
    label_of = np.full(len(data.names), -1, np.int64)
    label_of[kept] = np.arange(len(kept))
    place = folder_of(data.records[0].path) if data.records else Path()
    problems = [
        Problem("note", "class that only groups others", place, name,
                f"no object is of the class {name}, and other classes have it as their supercategory",
                "left out of the classes")
        for name in groups
    ]  # fmt: skip
    data = replace(
        data,
        records=tuple(replace(record, labels=label_of[record.labels]) for record in data.records),
        names=tuple(data.names[label] for label in kept),
        category_ids=tuple(data.category_ids[label] for label in kept),
    )
    return replace(reading, data=data, problems=(*reading.problems, *problems))
