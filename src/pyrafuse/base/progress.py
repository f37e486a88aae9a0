"""The bar of everything that takes more than a few seconds: how much of how much is done, and what time is left."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID

from pyrafuse.base.terminal import Terminal


def create_bar(console: Console | None, *, transient: bool = True) -> Progress:
    """A bar for one task or more, to be entered by ``with``.

    Args:
        console: Console to show it on; None shows nothing.
        transient: Whether it goes away when it is done.
    """
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    where = console or Terminal(quiet=True)
    return Progress(*columns, console=where, disable=console is None, transient=transient)


def advancing(bar: Progress, task: TaskID) -> Callable[[float], None]:
    """What moves ``task`` on by parts of a step: ten tenths are one step, in spite of rounding."""
    done = 0.0

    def advance(part: float) -> None:
        nonlocal done
        done += part
        bar.update(task, completed=round(done, 6))

    return advance
