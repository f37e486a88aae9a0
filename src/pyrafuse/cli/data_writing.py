"""What the commands that write data sets share: reading with its problems told, a bar, and what was written."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.printable import counted
from pyrafuse.base.progress import create_bar
from pyrafuse.base.records import ImageRecord
from pyrafuse.base.terminal import Terminal
from pyrafuse.data.checks.likeness import group_alike, hash_pictures
from pyrafuse.data.checks.report import format_problems
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.data.writing.converting import Plan, writable_formats, write
from pyrafuse.data.writing.splitting import group_by_name, join_groups


def read_sources(sources: Sequence[str], rules: ReadingRules) -> list[tuple[Reading, ...]]:
    """The splits of each data set; what is wrong with them goes to standard error."""
    found = []
    with create_bar(Terminal()) as bar:
        task = bar.add_task("reading", total=len(sources))
        for source in sources:
            found.append(read_all(source, rules=rules))
            bar.update(task, advance=1)
    problems = dict.fromkeys(problem for readings in found for reading in readings for problem in reading.problems)
    tell([*problems])
    return found


def tell(problems: Sequence[Problem]) -> None:
    """Print problems to standard error, kind by kind."""
    if problems:
        print("\n".join(format_problems(problems, 3)), file=sys.stderr)


def write_planned(planned: Plan, destination: Path) -> None:
    """Write, with a bar."""
    with create_bar(Terminal()) as bar:
        task = bar.add_task("writing images", total=None)
        write(planned, destination, progress=lambda done, total: bar.update(task, completed=done, total=total))


def choose_format(readings: Sequence[Reading]) -> str:
    """The format that data were read from, COCO where that is not written."""
    layout = readings[0].data.layout
    return layout if layout in writable_formats() else "coco"


def group_images(
    records: Sequence[ImageRecord], pattern: str | None, *, near_duplicates: bool
) -> NDArray[np.int64] | None:
    """(N,) the group of each image, by a pattern of names, by likeness, or by either; None where each is its own."""
    groups = None
    if pattern is not None:
        groups, num_alone = group_by_name(records, pattern)
        found = counted(len(set(groups.tolist())), "group")
        print(f"--group: {found}, {num_alone} of them images in which it finds nothing")
    if near_duplicates:
        with create_bar(Terminal()) as bar:
            task = bar.add_task("comparing pictures", total=len(records))
            hashes, _ = hash_pictures(
                [record.path for record in records], progress=lambda done, _: bar.update(task, completed=done)
            )
        alike = group_alike(hashes)
        print(
            f"--near-duplicates: {len(records) - len(set(alike.tolist()))} of {len(records)} pictures look like others"
        )
        groups = alike if groups is None else join_groups(groups, alike)
    return groups


def tell_plan(planned: Plan, destination: Path) -> None:
    """Print what was written, and what was lost or became different."""
    print(f"{destination}: {planned.describe()}")
    for loss in planned.losses:
        print(f"lost: {loss}")
    for note in planned.notes:
        print(f"note: {note}")
