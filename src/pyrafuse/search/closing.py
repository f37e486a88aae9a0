"""Whether the merges that are left suffice to read every map and to make every level that goes out.

A map that nothing reads yet is either the end of its level or must be read. A merge reads up to ``most`` maps and adds
one that is unread; only where it becomes the end of a level that had none does it leave one less.
"""

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

from pyrafuse.search.choices import Answer


def missing_levels(outputs: Set[int], made: Set[int], known: Set[int]) -> set[int]:
    """Levels that merges must still be at: those that go out, and those between them and the levels that there are.

    Args:
        outputs: Levels that go out.
        made: Levels of the merges so far.
        known: Levels that a map has, or that come in.
    """
    between = {*range(max(known) + 1, max(outputs)), *range(min(outputs) + 1, min(known))}
    return {level for level in outputs if level not in made} | between


def count_excess(
    unread: Sequence[int | None], *, outputs: Set[int], made: Set[int], known: Set[int], rest: int, most: int
) -> float:
    """How many of the unread maps are too many for the ``rest`` of the merges; infinite if levels cannot be made.

    Args:
        unread: The level of each unread merge; None for an unread map from outside, which is never the end of a level.
        outputs: Levels that go out.
        made: Levels of the merges so far.
        known: Levels that a map has, or that come in.
        rest: How many merges follow.
        most: Largest number of inputs of a merge.
    """
    if rest >= max(*known, *outputs) and len(unread) <= rest * (most - 1):
        return 0  # more than enough for anything
    missing = missing_levels(outputs, made, known)
    if rest < len(missing):
        return math.inf
    covered = len({level for level in unread if level in outputs})
    surplus = len(unread) - covered
    can_end = min(rest - len(missing - outputs), len(outputs) - covered)
    return max(0, surplus - rest * (most - 1) - can_end)


@lru_cache(maxsize=4096)
def count_merges(
    num_unread: int, *, outputs: frozenset[int], known: frozenset[int], most: int, limit: int
) -> int | None:
    """The least number of merges that read ``num_unread`` maps and make all ``outputs``; None if above ``limit``."""
    for number in range(1, limit + 1):
        unread = (None,) * num_unread
        if not count_excess(unread, outputs=outputs, made=frozenset(), known=known, rest=number, most=most):
            return number
    return None


@dataclass
class Closing:
    """What the merges so far leave to those that follow. A merge begins at a level, reads its inputs, and ends.

    Attributes:
        outputs: Levels that go out.
        span: Levels that a merge may be at.
        known: Levels that a map has, or that come in.
        unread: Maps that nothing has read yet: the level of a merge, None for a map from outside.
        rest: How many merges follow.
        most: Largest number of inputs of a merge.
        made: The level of each merge so far.
    """

    outputs: Set[int]
    span: range
    known: set[int]
    unread: dict[Answer, int | None]
    rest: int
    most: int
    made: dict[Answer, int] = field(default_factory=dict)

    def legal_levels(self) -> list[int]:
        """Where the next merge may be: at a level next to those that there are, and such that the rest can close."""
        return [level for level in self.span if self._is_reachable(level) and self._can_close(level)]

    def begin(self, level: int) -> int:
        """Begin a merge at ``level``; the least number of its inputs."""
        self.rest -= 1
        self.known.add(level)
        self._level = level
        return max(1, int(self._excess(level)))

    def legal_inputs(self, maps: Iterable[Answer], more: int) -> list[Answer]:
        """Which of ``maps`` the merge may read next, if it reads ``more`` after it."""
        if self._excess(self._level) <= more:
            return list(maps)
        return [one for one in maps if one in self.unread and self._excess(self._level, one) <= more]

    def read(self, name: Answer) -> None:
        """The merge reads this map."""
        self.unread.pop(name, None)

    def end(self, name: Answer) -> None:
        """End the merge, which is called so."""
        self.made[name] = self.unread[name] = self._level

    def legal_ends(self, level: int) -> list[Answer]:
        """The unread merge of ``level``, or where there is none, all of them."""
        here = [name for name, its in self.made.items() if its == level]
        return [name for name in here if name in self.unread] or here

    def _is_reachable(self, level: int) -> bool:
        return level in self.known or level in (min(self.known) - 1, max(self.known) + 1)

    def _can_close(self, level: int) -> bool:
        levels = [*self.unread.values(), level]
        ends = {one for one in levels if one in self.outputs}
        can_read = len(levels) - len(ends) - (level not in self.outputs)  # of what is no end of its level
        self.rest -= 1
        excess = self._excess(level)
        self.rest += 1
        return excess <= min(self.most, can_read)

    def _excess(self, level: int, without: Answer | None = None) -> float:
        """That of `count_excess` after a merge at ``level`` that has read the map ``without``, too."""
        unread = [its for name, its in self.unread.items() if name != without]
        return count_excess(
            [*unread, level],
            outputs=self.outputs,
            made={*self.made.values(), level},
            known={*self.known, level},
            rest=self.rest,
            most=self.most,
        )
