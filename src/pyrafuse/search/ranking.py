"""Which of the trials is better, though most of them were stopped early."""

from collections.abc import Sequence

import numpy as np

from pyrafuse.experiments.rank_correlation import place_each
from pyrafuse.search.journal import FINISHED, Trial


def rank(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials, the best first; a trial that failed or exceeded the budget has no place.

    All are ordered by what they reached at the first rung. Those that went further share the places they hold anew by
    what they reached up to the next one, rung by rung: a later figure orders only trials that both have it.
    """
    ranked = _finished(trials)
    for rungs in range(1, 1 + max((len(trial.rungs) for trial in ranked), default=0)):
        places = [place for place, trial in enumerate(ranked) if len(trial.rungs) >= rungs]
        again = _order([ranked[place] for place in places], rungs)
        for place, trial in zip(places, again, strict=True):
            ranked[place] = trial
    return ranked


def leaders(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials that went furthest, the best first: all of their figures can be compared."""
    finished = _finished(trials)
    furthest = max((len(trial.rungs) for trial in finished), default=0)
    return _order([trial for trial in finished if len(trial.rungs) == furthest], furthest)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of `leaders`; none if there is none."""
    return next(iter(leaders(trials)), None)


def _finished(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.state == FINISHED and trial.rungs]


def _order(trials: Sequence[Trial], rungs: int) -> list[Trial]:
    """The best first, by the sum of their places in each figure of so many rungs: the losses, and AP where measured.

    One figure of a short training is noisy: the AP after the last rung ranked good graphs worse than the losses before
    it. Of equal sums the later figures decide, then the earlier trial.
    """
    figures = [figure for rung in range(rungs) for figure in _figures_of(trials, rung)]
    total = sum((place_each(figure) for figure in figures), np.zeros(len(trials)))
    order = sorted(range(len(trials)), key=lambda i: (total[i], *(f[i] for f in reversed(figures)), trials[i].number))
    return [trials[i] for i in order]


def _figures_of(trials: Sequence[Trial], rung: int) -> list[list[float]]:
    """The losses of a rung, and the negative APs if all have one: less is better."""
    reached = [trial.rungs[rung] for trial in trials]
    aps = [-one.ap for one in reached if one.ap is not None]
    return [[one.loss for one in reached], *([aps] if len(aps) == len(trials) else [])]
