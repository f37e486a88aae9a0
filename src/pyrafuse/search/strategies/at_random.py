"""Random draws: what every other strategy has to be ahead of (Li and Talwalkar, arXiv:1902.07638)."""

import random
from collections.abc import Sequence

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy


@STRATEGIES.register("random")
class Random(Strategy):
    """Every question is answered at random."""

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        del trials
        return sample(space, inputs, rng)
