"""The console of every command: text is shown as it is, and no name in it gives an order."""

from typing import Any

from rich.console import Console

from pyrafuse.base.printable import printable_lines


class Terminal(Console):
    """A rich console without markup: ``car [old]`` stays as it is, and escapes of a terminal are shown, not obeyed.

    Args:
        stderr: Whether to write to standard error.
        quiet: Whether to write nothing.
    """

    def __init__(self, *, stderr: bool = True, quiet: bool = False, **options: Any) -> None:
        super().__init__(
            stderr=stderr, quiet=quiet, soft_wrap=True, markup=False, emoji=False, highlight=False, **options
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print ``objects``; in texts, all that is no printable character is escaped, line breaks apart."""
        super().print(*(printable_lines(o) if isinstance(o, str) else o for o in objects), **options)
