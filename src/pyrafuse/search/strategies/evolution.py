"""Regularised evolution: the youngest trials are the population, and the old ones die however good they are.

Real, Aggarwal, Huang and Le, arXiv:1802.01548, algorithm 1. The paper has no crossover.
the last trials -> a few at random -> the best of them (sometimes crossed with another) -> one answer changed
"""

import random
from collections.abc import Sequence

from pyrafuse.base.errors import check_between, check_count
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.ranking import rank
from pyrafuse.search.space import cross, mutate, sample
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy, restore


@STRATEGIES.register("evolution")
class Evolution(Strategy):
    """Tournaments among the youngest trials.

    Args:
        population: Number of the youngest trials that can be parents; until there are so many, draws are random.
        tournament: Number of trials of which the best one becomes a parent.
        crossover: Probability that a second parent takes part.
        mutations: Largest number of answers that are changed in a child; one at least is.

    Raises:
        PyrafuseError: If a number is out of range.
    """

    def __init__(
        self, *, population: int = 16, tournament: int = 5, crossover: float = 0.5, mutations: int = 3
    ) -> None:
        check_count("population", population, 2)
        check_count("tournament", tournament, 1)
        check_between("crossover", crossover, 0, 1)
        check_count("mutations", mutations, 1)
        self._population, self._tournament = population, tournament
        self._crossover, self._mutations = crossover, mutations

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        places = {trial.number: place for place, trial in enumerate(rank(trials))}
        alive = [trial for trial in trials if trial.number in places][-self._population :]
        if len(alive) < self._population:
            return sample(space, inputs, rng)

        def choose_parent() -> Candidate:
            rivals = rng.sample(alive, min(self._tournament, len(alive)))
            return restore(space, inputs, min(rivals, key=lambda trial: places[trial.number]))

        child = choose_parent()
        if rng.random() < self._crossover:
            child = cross(space, inputs, child, choose_parent(), rng)
        for _ in range(rng.randint(1, self._mutations)):
            child = mutate(space, inputs, child, rng)
        return child
