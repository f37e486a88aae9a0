"""Answers dealt so that every option of a question comes as often as the others.

Chu, Zhang and Xu, "FairNAS", arXiv:1907.01845, section 3.3.
question, options -> one of those that were given least often
"""

import random
from collections.abc import Sequence

from pyrafuse.search.choices import Answer


class FairChooser:
    """Answers questions at random among the options that it gave least often; see `draw`.

    FairNAS has a fixed number of layers with the same options, and each round of as many paths as there are options has
    every option of a layer once. Here most questions depend on earlier answers. Strict fairness therefore holds for
    each question with the same options by itself: at any time any two of its options were given equally often, or one
    of them once more. In a round of m paths, a question that every path is asked with k options gives each of them
    exactly m/k times if k divides m (and no path is passed over); otherwise the difference is made up for in the next
    round. What follows from an answer, such as a merge that only some paths have, is not fair across questions: an
    option of a rare question comes rarely.

    Args:
        seed: Seed of the order.

    Attributes:
        counts: How often each option was given, by question and options.
    """

    def __init__(self, seed: object) -> None:
        self.counts: dict[tuple[str, tuple[Answer, ...]], list[int]] = {}
        self._rng = random.Random(f"{seed}/fair")

    def __call__(self, question: str, options: Sequence[Answer]) -> int:
        counts = self.counts.setdefault((question, tuple(options)), [0] * len(options))
        least = min(counts)
        place = self._rng.choice([place for place, count in enumerate(counts) if count == least])
        counts[place] += 1
        return place
