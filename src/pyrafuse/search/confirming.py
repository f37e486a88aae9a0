"""The best necks of a search, in full beside necks made by hand and the best of random draws at equal cost.

trials, and those of a random search of as many seconds -> candidates -> `train_in_full` -> what is more than chance
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyrafuse.experiments.statistics import Difference, compare_by_seed, summarize
from pyrafuse.search.by_hand import BY_HAND, name_by_hand
from pyrafuse.search.choices import Candidate
from pyrafuse.search.journal import Trial
from pyrafuse.search.ranking import leaders, rank
from pyrafuse.search.running import RANDOM, Plan
from pyrafuse.search.strategies.registry import restore
from pyrafuse.search.training_in_full import FullResults

NUM_BEST = 3


@dataclass(frozen=True)
class Chosen:
    """What is trained in full.

    Attributes:
        candidates: By name: ``trial-12``, ``fpn-48``, ``random-7``.
        found: Names of those that the search found, the best first by its own ranking.
    """

    candidates: Mapping[str, Candidate]
    found: tuple[str, ...]


def choose(plan: Plan, trials: Sequence[Trial], drawn: Sequence[Trial]) -> Chosen:
    """The best graphs of a search, each neck made by hand in the channels that it ranks best with, and the best draw.

    Args:
        plan: How candidates were looked for.
        trials: Those of the search.
        drawn: Those of a random search of as many seconds.
    """
    best = [trial for trial in leaders(trials) if not name_by_hand(trial.source)][:NUM_BEST]
    by_hand: dict[str, Trial] = {}
    for trial in rank(trials):
        if name := name_by_hand(trial.source):
            by_hand.setdefault(name, trial)
    known = {trial.fingerprint for trial in (*best, *by_hand.values())}
    random = [trial for trial in leaders(drawn)[:1] if trial.fingerprint not in known]
    named = {f"trial-{trial.number}": trial for trial in best}
    found = tuple(named)
    named |= {by_hand[name].source: by_hand[name] for name in BY_HAND if name in by_hand}
    named |= {f"{RANDOM}-{trial.number}": trial for trial in random}
    return Chosen({name: restore(plan.space, plan.inputs, trial) for name, trial in named.items()}, found)


@dataclass(frozen=True)
class Confirmation:
    """What full trainings say of a search.

    Attributes:
        chosen: What was trained.
        results: What came of it.
    """

    chosen: Chosen
    results: FullResults

    @property
    def best(self) -> str | None:
        """The graph found with the highest mean AP; none where no training of one has an AP."""
        means = {name: summarize([*self.results.precisions[name].values()]).mean for name in self.chosen.found}
        return max((name for name in means if not math.isnan(means[name])), key=lambda name: means[name], default=None)

    def sentences(self) -> list[str]:
        """The best graph found beside every neck made by hand and beside random draws, in words."""
        if self.best is None:
            return ["No graph that the search found has an AP in full training."]
        others = [name for name in self.chosen.candidates if name not in self.chosen.found]
        return [judge(compare_by_seed(self.best, other, self.results.precisions)) for other in others]


def judge(difference: Difference) -> str:
    """``difference`` in words: what lies within the spread is a tie."""
    first, second = difference.first, difference.second
    if math.isnan(difference.mean) or difference.count < 2:
        return f"{first} and {second} cannot be compared: they have fewer than two seeds in common."
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    figures = f"AP {difference.mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, {difference.count} seeds)"
    if difference.is_within_spread:
        return f"{first} and {second} are tied: {figures}."
    return f"{first} is {'better' if difference.mean > 0 else 'worse'} than {second}: {figures}."
