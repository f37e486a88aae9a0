"""What the commands that write data sets share: reading with its problems told, a bar, and what was written."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pyrafuse.base.progress import create_bar
from pyrafuse.base.terminal import Terminal
from pyrafuse.data.checks.checking import format_problems
from pyrafuse.data.formats.layout import read_all
from pyrafuse.data.reading.problems import Reading
from pyrafuse.data.reading.rules import ReadingRules
from pyrafuse.data.writing.converting import Plan, write


def read_sources(sources: Sequence[str], rules: ReadingRules) -> list[tuple[Reading, ...]]:
    """The splits of each data set; what is wrong with them goes to standard error."""
    found = []
    with create_bar(Terminal()) as bar:
        task = bar.add_task("reading", total=len(sources))
        for source in sources:
            found.append(read_all(source, rules=rules))
            bar.update(task, advance=1)
    problems = dict.fromkeys(problem for readings in found for reading in readings for problem in reading.problems)
    if problems:
        print("\n".join(format_problems([*problems], 3)), file=sys.stderr)
    return found


def write_planned(planned: Plan, destination: Path) -> None:
    """Write, with a bar."""
    with create_bar(Terminal()) as bar:
        task = bar.add_task("writing images", total=None)
        write(planned, destination, progress=lambda done, total: bar.update(task, completed=done, total=total))


def tell_plan(planned: Plan, destination: Path) -> None:
    """Print what was written, and what was lost or became different."""
    print(f"{destination}: {planned.describe()}")
    for loss in planned.losses:
        print(f"lost: {loss}")
    for note in planned.notes:
        print(f"note: {note}")
