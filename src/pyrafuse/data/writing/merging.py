"""Several data sets put together: the splits of each -> the same splits of all, under the classes of all."""

import os
from collections.abc import Sequence
from dataclasses import replace

from pyrafuse.base.errors import DataError
from pyrafuse.base.members import folder_of
from pyrafuse.base.printable import counted
from pyrafuse.base.records import ImageRecord
from pyrafuse.data.checks.classes import find_alike_names
from pyrafuse.data.reading.joining import join_readings, share_classes
from pyrafuse.data.reading.problems import Problem, Reading


def merge_readings(sources: Sequence[Sequence[Reading]]) -> tuple[tuple[Reading, ...], tuple[Problem, ...]]:
    """The splits of all of ``sources``, those of one name as one, and what came of putting them together.

    Classes are the same where their names are. A file that several of them list is taken once, as the first has it.

    Raises:
        DataError: If one has a split without a name, and another one has not.
    """
    shared = share_classes([reading for readings in sources for reading in readings])
    by_split: dict[str, list[Reading]] = {}
    for reading in shared:
        by_split.setdefault(reading.data.split, []).append(reading)
    if "" in by_split and len(by_split) > 1:
        named = ", ".join(split for split in by_split if split)
        raise DataError(
            f"{folder_of(by_split[''][0].data.records[0].path)} has one split without a name, and others have {named}; "
            "divide it first, by pyrafuse data split"
        )
    seen: set[str] = set()
    merged, repeated = [], []
    for readings in by_split.values():
        joined = join_readings(readings)
        kept = []
        for record in joined.data.records:
            real = os.path.realpath(record.path)
            (repeated if real in seen else kept).append(record)
            seen.add(real)
        merged.append(replace(joined, data=replace(joined.data, records=tuple(kept))))
    problems = find_alike_names(shared[0].data.names, folder_of(shared[0].data.records[0].path))
    filled = tuple(reading for reading in merged if reading.data.records)
    return filled, (*problems, *_tell_repeated(repeated))


def _tell_repeated(repeated: Sequence[ImageRecord]) -> list[Problem]:
    if not repeated:
        return []
    return [
        Problem("warning", "image in several data sets", repeated[0].path, "",
                f"{counted(len(repeated), 'image')} listed before, in another data set or split; this is the first",
                "taken once, with the objects of the first; name each data set once")
    ]  # fmt: skip
