"""The first of many values, and how many there were: what a camera says for days fills neither memory nor a page."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 1000


@dataclass
class FirstOf(Generic[T]):
    """Values that come one by one, of which the first `MOST` are kept.

    Attributes:
        kept: The first ones.
        count: How many there were.
    """

    kept: list[T] = field(default_factory=list)
    count: int = 0

    def add(self, value: T) -> None:
        """Count ``value``, and keep it if it is among the first."""
        self.count += 1
        if len(self.kept) < MOST:
            self.kept.append(value)
