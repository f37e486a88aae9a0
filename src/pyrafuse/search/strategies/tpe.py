"""Tree-structured Parzen estimators: answers that are frequent among good trials and rare among the others.

Bergstra, Bardenet, Bengio and Kegl, "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011; by optuna.
"""

import random
from collections.abc import Sequence

from pyrafuse.base.errors import check_count
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import OVER_BUDGET, Trial
from pyrafuse.search.ranking import rank
from pyrafuse.search.strategies.coding import Coder, draw_by, quiet_optuna, seed_of
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy


@STRATEGIES.register("tpe")
class TPE(Strategy):
    """Each question is estimated by itself: most trials are not asked the same questions.

    Trials over the budget count as the worst. Without them the estimate draws what is good and too large, again and
    again.

    Args:
        startup: Number of finished trials before which draws are random.

    Raises:
        PyrafuseError: If it is negative.
    """

    def __init__(self, *, startup: int = 10) -> None:
        check_count("startup", startup)
        self._startup = startup
        self._coder = Coder()

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        with quiet_optuna() as optuna:
            sampler = optuna.samplers.TPESampler(n_startup_trials=self._startup, multivariate=False, seed=seed_of(rng))
            study = optuna.create_study(sampler=sampler)
            places = {trial.number: place for place, trial in enumerate(rank(trials))}
            if len(places) >= self._startup:
                places |= {trial.number: len(places) for trial in trials if trial.state == OVER_BUDGET}
            for trial in (trial for trial in trials if trial.number in places):
                asked = {_name(one.question, len(one.options)): one for one in self._coder.code(space, inputs, trial)}
                study.add_trial(
                    optuna.trial.create_trial(
                        params={name: one.place for name, one in asked.items()},
                        distributions={
                            name: optuna.distributions.CategoricalDistribution(range(len(one.options)))
                            for name, one in asked.items()
                        },
                        value=float(places[trial.number]),
                    )
                )
            return draw_by(
                space,
                inputs,
                study,
                lambda asking, question, count: asking.suggest_categorical(_name(question, count), range(count)),
            )


def _name(question: str, count: int) -> str:
    """Name of a parameter: its options must be the same in every trial, and a question can have more or fewer."""
    return f"{question} of {count}"
