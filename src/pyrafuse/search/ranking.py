"""Which of the trials is better, though most of them were stopped early."""

from collections.abc import Sequence

from pyrafuse.search.journal import FINISHED, Trial


def rank(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials, the best first; a trial that failed or exceeded the budget has no place.

    All are ordered by what they reached at the first rung. Those that went further share the places they hold anew by
    what they reached at the next one, rung by rung: a later figure orders only trials that both have it.
    """
    ranked = [trial for trial in trials if trial.state == FINISHED and trial.rungs]
    for rung in range(max((len(trial.rungs) for trial in ranked), default=0)):
        places = [place for place, trial in enumerate(ranked) if len(trial.rungs) > rung]
        again = sorted((ranked[place] for place in places), key=lambda trial: _order(trial, rung))
        for place, trial in zip(places, again, strict=True):
            ranked[place] = trial
    return ranked


def leaders(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials that went furthest, the best first: their last figures can be compared."""
    finished = [trial for trial in trials if trial.state == FINISHED and trial.rungs]
    furthest = max((len(trial.rungs) for trial in finished), default=0)
    return sorted(
        (trial for trial in finished if len(trial.rungs) == furthest), key=lambda trial: _order(trial, furthest - 1)
    )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The first of `leaders`; none if there is none."""
    return next(iter(leaders(trials)), None)


def _order(trial: Trial, place: int) -> tuple[float, float, int]:
    """By AP where a rung has one, else by the loss alone; of equals the earlier trial is ahead."""
    rung = trial.rungs[place]
    return (0.0 if rung.ap is None else -rung.ap), rung.loss, trial.number
