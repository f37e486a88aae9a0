"""Several data sets put together: the splits of each -> the same splits of all, under the classes of all."""

from collections.abc import Sequence
from dataclasses import replace

from pyrafuse.base.errors import DataError
from pyrafuse.data.checks.checking import find_alike_names
from pyrafuse.data.reading.joining import join_readings, share_classes
from pyrafuse.data.reading.problems import Reading


def merge_readings(sources: Sequence[Sequence[Reading]]) -> tuple[Reading, ...]:
    """The splits of all of ``sources``; those of one name are one. Classes are the same where their names are."""
    shared = share_classes([reading for readings in sources for reading in readings])
    by_split: dict[str, list[Reading]] = {}
    for reading in shared:
        by_split.setdefault(reading.data.split, []).append(reading)
    if "" in by_split and len(by_split) > 1:
        named = ", ".join(split for split in by_split if split)
        raise DataError(
            f"{by_split[''][0].data.records[0].path.parent} has one split without a name, and others have {named}; "
            "divide it first, by pyrafuse data split"
        )
    merged = [join_readings(readings) for readings in by_split.values()]
    place = merged[0].data.records[0].path.parent
    alike = find_alike_names(merged[0].data.names, place)
    first = merged[0]
    return (replace(first, problems=(*first.problems, *alike)), *merged[1:])
