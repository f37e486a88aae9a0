"""Trials as rows of questions with their options and answers; and as optuna knows them."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyrafuse.base.extras import naming_extras
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Answer, Candidate, Space
from pyrafuse.search.journal import Trial
from pyrafuse.search.space import draw

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Asked:
    """A question that had more than one option.

    Attributes:
        question: Its name.
        options: Legal answers.
        place: Place of the given one among them.
    """

    question: str
    options: tuple[Answer, ...]
    place: int


class Coder:
    """Finds what trials were asked; each is drawn once, as long as space and inputs stay the same."""

    def __init__(self) -> None:
        self._of: tuple[Space, PyramidSpec] | None = None
        self._known: dict[int, tuple[Trial, tuple[Asked, ...]]] = {}

    def code(self, space: Space, inputs: PyramidSpec, trial: Trial) -> tuple[Asked, ...]:
        """The questions of ``trial``, in their order."""
        if self._of != (space, inputs):
            self._of, self._known = (space, inputs), {}
        known = self._known.get(trial.number)
        if known is None or known[0].answers != trial.answers:
            known = (trial, tuple(_ask(space, inputs, trial)))
            self._known[trial.number] = known
        return known[1]


def _ask(space: Space, inputs: PyramidSpec, trial: Trial) -> list[Asked]:
    asked: list[Asked] = []

    def choose(question: str, options: Sequence[Answer]) -> int:
        if len(options) == 1:
            return 0
        asked.append(Asked(question, tuple(options), list(options).index(trial.answers[question])))
        return asked[-1].place

    draw(space, inputs, choose)
    return asked


@contextmanager
def quiet_optuna() -> Iterator[Any]:
    """The library, which tells of every study that it makes unless it is asked not to."""
    with naming_extras():
        import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def draw_by(
    space: Space, inputs: PyramidSpec, study: "optuna.Study", suggest: Callable[[Any, str, int], int]
) -> Candidate:
    """A candidate whose questions the study's sampler answers.

    Args:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        study: With all trials so far.
        suggest: Function from optuna's trial, a question and its number of options to the place of the answer.
    """
    asking = study.ask()
    return draw(
        space, inputs, lambda question, options: 0 if len(options) == 1 else suggest(asking, question, len(options))
    )


def seed_of(rng: random.Random) -> int:
    """A seed as numpy takes it."""
    return rng.getrandbits(32)
