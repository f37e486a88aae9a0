"""NSGA-II: a population that spreads along the front of two aims, to rank high and to cost little.

Deb, Pratap, Agarwal and Meyarivan, "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002; by optuna.
"""

import random
from collections.abc import Sequence

from pyrafuse.base.errors import check_count
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.ranking import rank
from pyrafuse.search.strategies.coding import Coder, draw_by, quiet_optuna, seed_of
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy

COSTS = ("latency_ms", "gflops", "parameters")
"""What costs little, the first that is known."""


@STRATEGIES.register("nsga2")
class NSGA2(Strategy):
    """Questions are genes between 0 and 1, so that a gene means something whatever the number of options is.

    Args:
        population: Number of trials a generation; the first one is random.

    Raises:
        PyrafuseError: If it is below 2.
    """

    def __init__(self, *, population: int = 16) -> None:
        check_count("population", population, 2)
        self._population = population
        self._coder = Coder()

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        with quiet_optuna() as optuna:
            sampler = optuna.samplers.NSGAIISampler(population_size=self._population, seed=seed_of(rng))
            study = optuna.create_study(directions=("minimize", "minimize"), sampler=sampler)
            places = {trial.number: place for place, trial in enumerate(rank(trials))}
            rated = [trial for trial in trials if trial.number in places]
            coded = [self._coder.code(space, inputs, trial) for trial in rated]
            # the sampler crosses only genes that all trials have: a question that was not asked is in the middle
            unasked = dict.fromkeys((one.question for asked in coded for one in asked), 0.5)
            gene = optuna.distributions.FloatDistribution(0.0, 1.0)
            for age, (trial, asked) in enumerate(zip(rated, coded, strict=True)):
                study.add_trial(
                    optuna.trial.create_trial(
                        params={**unasked, **{one.question: (one.place + 0.5) / len(one.options) for one in asked}},
                        distributions=dict.fromkeys(unasked, gene),
                        values=(float(places[trial.number]), _cost_of(trial)),
                        # the sampler's own mark, which it sets on trials that it has drawn in the same study
                        system_attrs={"NSGAIISampler:generation": age // self._population},
                    )
                )
            return draw_by(
                space,
                inputs,
                study,
                lambda asking, question, count: min(count - 1, int(count * asking.suggest_float(question, 0.0, 1.0))),
            )


def _cost_of(trial: Trial) -> float:
    return float(next((trial.cost[name] for name in COSTS if name in trial.cost), 0.0))
