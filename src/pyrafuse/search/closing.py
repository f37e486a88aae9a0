"""Whether the merges that are left suffice to read every map and to make every level that goes out.

A map that nothing reads yet is either the end of its level or must be read. A merge reads up to ``most`` maps and adds
one that is unread; only where it becomes the end of a level that had none does it leave one less.
"""

import math
from collections.abc import Iterable, Set
from functools import lru_cache

Unread = Iterable[int | None]
"""The level of each unread merge; None for an unread map from outside, which is never the end of a level."""


def missing_levels(outputs: Set[int], made: Set[int], known: Set[int]) -> set[int]:
    """Levels that merges must still be at: those that go out, and those between them and the levels that there are.

    Args:
        outputs: Levels that go out.
        made: Levels of the merges so far.
        known: Levels that a map has, or that come in.
    """
    between = {*range(max(known) + 1, max(outputs)), *range(min(outputs) + 1, min(known))}
    return {level for level in outputs if level not in made} | between


def count_excess(unread: Unread, *, outputs: Set[int], made: Set[int], known: Set[int], rest: int, most: int) -> float:
    """How many of the unread maps are too many for the ``rest`` of the merges; infinite if levels cannot be made."""
    missing = missing_levels(outputs, made, known)
    if rest < len(missing):
        return math.inf
    unread = tuple(unread)
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
