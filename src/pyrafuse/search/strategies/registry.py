"""What a strategy is, and the names of those that there are."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from pyrafuse.base.registry import Registry
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.material import Material
from pyrafuse.search.space import replay


class Strategy(ABC):
    """Proposes candidates.

    What it keeps between two calls may spare time and never changes a proposal: the same trials and the same ``rng``
    give the same candidate, so that a search which was stopped goes on as if it had not been.
    """

    def prepare(self, material: Material) -> None:  # noqa: B027  # most have no use for it
        """Take what the search has at hand; called once, before the first proposal of a session."""

    @property
    def seconds(self) -> float:
        """Seconds that work of its own took in all sessions, such as training; they are counted as the search's."""
        return 0.0

    def describe(self, trials: Sequence[Trial]) -> str:  # noqa: ARG002
        """What a person may want to read of how it proposed ``trials``; empty if nothing."""
        return ""

    @abstractmethod
    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        """The next candidate.

        Args:
            space: What may be chosen.
            inputs: Channels and strides of the backbone's maps.
            trials: All trials before, by number: finished ones, and others that say nothing of their worth yet.
            rng: Random generator, the only source of randomness.
        """


STRATEGIES: Registry[Strategy] = Registry("strategy", "pyrafuse.search.strategies")


def restore(space: Space, inputs: PyramidSpec, trial: Trial) -> Candidate:
    """The candidate that ``trial`` was of."""
    answers = trial.answers
    always_the_same = random.Random(0)  # and not needed: all answers are there
    return replay(space, inputs, lambda one: (answers[one],) if one in answers else (), always_the_same)
