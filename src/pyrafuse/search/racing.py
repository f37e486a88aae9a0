"""A race by successive halving, wherever its candidates are trained.

candidates -> trained up to a rung -> outcomes -> the best go on to the next rung -> the outcome of each
"""

from collections.abc import Callable, Iterable, Mapping

from pyrafuse.necks.graph import Graph
from pyrafuse.search.halving import promote
from pyrafuse.search.learners import Outcome, Rung
from pyrafuse.search.settings import ProxySettings

Candidates = Mapping[str, tuple[Graph, int]]
"""Graph and side of the input in pixels, by fingerprint."""


class TimeOver(Exception):  # noqa: N818  # no error: what was asked for has happened
    """The time of the search ended before a race did."""


def race(
    candidates: Candidates,
    train: Callable[[Candidates, int], Iterable[Outcome]],
    settings: ProxySettings,
    tell: Callable[[Outcome], None],
) -> dict[str, Outcome]:
    """Judge ``candidates`` by successive halving.

    Args:
        candidates: All of them begin together.
        train: Trains those that are still in the race up to the given step, and gives the outcome of each so far.
        settings: Rungs, and what candidates are compared by.
        tell: Called with each outcome at the end of a rung, or of a failure.

    Returns:
        The outcome of each.
    """
    outcomes: dict[str, Outcome] = {}
    running = candidates
    for until in settings.rungs:
        for outcome in train(running, until):
            outcomes[outcome.fingerprint] = outcome
            tell(outcome)
        scores = {name: score(outcomes[name].rungs[-1], settings) for name in running if not outcomes[name].reason}
        going_on = promote(scores, settings.eta)
        running = {name: candidate for name, candidate in running.items() if name in going_on}
        if not running:
            break
    return outcomes


def score(rung: Rung, settings: ProxySettings) -> float:
    """What candidates are compared by at a rung, the lower the better."""
    return rung.loss if settings.score == "loss" else -(rung.ap or 0.0)
