"""Works that take turns, so that the machine's load hits all alike, and what their times tell."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import median


def take_turns(
    work: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    wait: Callable[[], object] = lambda: None,
    before: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of each round of several works that take turns.

    The order changes from round to round: what runs just before leaves its traces in the caches.

    Args:
        work: By name; each one is called once a round.
        rounds: Timed rounds.
        warmup: Rounds before, which are not timed.
        wait: Returns when all that was begun is done.
        before: What is done before each call of a work and not timed, by name.
        clock: Seconds.

    Raises:
        ValueError: If no round is timed.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, got {rounds}")
    times: dict[str, list[float]] = {name: [] for name in work}
    order = Random(0)
    for number in range(-warmup, rounds):
        for name in order.sample(list(work), len(work)):
            if before:
                before[name]()
            wait()
            start = clock()
            work[name]()
            wait()
            if number >= 0:
                times[name].append(1000 * (clock() - start))
    return times


def compare_in_pairs(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Least, median and most of the median difference of paired rounds with a confidence of 95 %.

    From the order of the differences alone, whatever their distribution: load makes some rounds very long.
    """
    differences = sorted(a - b for a, b in zip(ours, theirs, strict=True))
    count = len(differences)
    rank = max(0, math.floor(count / 2 - 0.98 * math.sqrt(count)))
    return differences[rank], median(differences), differences[count - 1 - rank]
