"""Graphs that are judged with shared weights, in a journal of their own.

trials of others, graphs drawn and evolved -> loss with shared weights -> journal
"""

import random
import time
from collections.abc import Sequence

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import BEGUN, FINISHED, Journal, Trial
from pyrafuse.search.learners import Rung
from pyrafuse.search.material import Material
from pyrafuse.search.running import name_candidate
from pyrafuse.search.strategies.evolution import Evolution
from pyrafuse.search.strategies.registry import restore
from pyrafuse.search.supernet import Supernet

POOL, TRIED = "pool", "tried"
"""Sources of what is judged: graphs to propose, and trials that others proposed."""
MAX_TRIES = 50
"""Graphs in a row that are there already, fail or are over the budget, after which no more are added for now."""


class Pool:
    """What is judged, while its journal is open.

    Args:
        journal: Where losses are kept.
        material: Seed and budget of the search.
        supernet: Shared weights, trained in full.
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
    """

    def __init__(
        self, journal: Journal, material: Material, supernet: Supernet, space: Space, inputs: PyramidSpec
    ) -> None:
        self._journal, self._material, self._supernet = journal, material, supernet
        self._space, self._inputs = space, inputs

    def go_on(self) -> None:
        """Judge what an earlier session began."""
        for trial in self._journal.trials:
            if trial.state == BEGUN:
                self._judge(trial)

    def judge_tried(self, trials: Sequence[Trial]) -> None:
        """Judge trials of the search, to compare both figures."""
        for trial in trials:
            self._judge(self._begin(TRIED, restore(self._space, self._inputs, trial)))

    def grow(self, evolution: Evolution, size: int) -> None:
        """Judge graphs that ``evolution`` proposes, knowing those that it proposed before, until there are ``size``."""
        in_vain = repeated = 0
        while in_vain < MAX_TRIES:
            known = [trial for trial in self._journal.trials if trial.source == POOL]
            if sum(trial.state == FINISHED for trial in known) >= size:
                return
            in_vain += 1
            rng = random.Random(f"{self._material.settings.seed}/pool/{len(known)}/{repeated}")
            candidate = evolution.propose(self._space, self._inputs, known, rng)
            if name_candidate(candidate, self._inputs) in {trial.fingerprint for trial in known}:
                repeated += 1
                continue
            repeated, excess = 0, self._material.find_excess(candidate)
            trial = self._begin(POOL, candidate)
            if excess:
                self._journal.refuse(trial.number, excess)
            elif self._judge(trial):
                in_vain = 0

    def _begin(self, source: str, candidate: Candidate) -> Trial:
        name = name_candidate(candidate, self._inputs)
        return self._journal.begin(
            source=source, answers=candidate.answers, fingerprint=name, size=candidate.size, cost={}
        )

    def _judge(self, trial: Trial) -> bool:
        """Write down the loss of a trial; whether it has one."""
        began = time.monotonic()
        graph = restore(self._space, self._inputs, trial).graph
        try:
            loss = self._supernet.judge(trial.fingerprint, graph, trial.size)
        except Exception as error:  # parts of users fail in their own ways
            self._journal.fail(trial.number, str(error) or type(error).__name__)
            return False
        steps = self._supernet.progress.rounds
        self._journal.reach(trial.number, 0, Rung(steps, loss, None, time.monotonic() - began))
        self._journal.finish(trial.number)
        return True


def losses_of(judged: Sequence[Trial]) -> dict[str, float]:
    """Loss with shared weights of each graph that has one, by fingerprint."""
    return {trial.fingerprint: trial.rungs[0].loss for trial in judged if trial.state == FINISHED}
