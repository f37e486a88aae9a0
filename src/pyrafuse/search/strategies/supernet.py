"""One-shot search: graphs are drawn and evolved by their loss with shared weights, and the best are tried.

Guo et al., "Single path one-shot neural architecture search", arXiv:1904.00420; Liang et al., "OPANAS",
arXiv:2103.04507. Deviation: a graph with a good loss is a trial as any other, which trains weights of its own.
shared weights -> pool of graphs, random and evolved, each with its loss -> the best one that was not tried
"""

import random
from collections.abc import Sequence
from pathlib import Path

from pyrafuse.base.errors import PyrafuseError, check_count
from pyrafuse.base.printable import counted
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.experiments.rank_correlation import correlate
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import BEGUN, FINISHED, JOURNAL_FILE, Trial, open_journal, read_trials
from pyrafuse.search.material import Material
from pyrafuse.search.pool import POOL, Pool, losses_of
from pyrafuse.search.ranking import rank
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.evolution import Evolution
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy, restore
from pyrafuse.search.supernet import NORMS, Norms, Supernet
from pyrafuse.training.progress import duration

LEAST_TO_RANK = 4
"""Number of trials below which no correlation is stated."""


@STRATEGIES.register("supernet")
class OneShot(Strategy):
    """Weight sharing by fair single-path sampling.

    Shared weights are trained before the first proposal, for as many steps as the first rungs of 16 trials have (by
    default), and kept in the search's folder with the loss of every graph that was judged by them. The ranking that
    they give is compared with that of the first rung, for trials of random draws and necks made by hand, too.

    Args:
        rounds: Number of steps of the optimiser.
        paths: Number of graphs that each of them learns from.
        norms: ``recalibrated`` measures the statistics of batch norms anew for each graph that is judged; ``group`` has
            group norms in the place of batch norms.
        pool: Number of graphs that are judged before the first proposal.
        growth: Number of further ones for each trial.
        population: Number of the youngest graphs of the pool that can be parents; the first ones are random.

    Raises:
        PyrafuseError: If a number is out of range, or there are no such norms.
    """

    def __init__(
        self,
        *,
        rounds: int = 64,
        paths: int = 8,
        norms: Norms = "recalibrated",
        pool: int = 48,
        growth: int = 4,
        population: int = 24,
    ) -> None:
        for name, value in {"rounds": rounds, "paths": paths, "pool": pool}.items():
            check_count(name, value, 1)
        check_count("growth", growth)
        if norms not in NORMS:
            raise PyrafuseError(f"norms must be one of {', '.join(NORMS)}, got {norms!r}")
        self._rounds, self._paths = rounds, paths
        self._norms: Norms = norms
        self._pool, self._growth = pool, growth
        self._evolution = Evolution(population=population)
        self._material: Material | None = None
        self._supernet: Supernet | None = None
        self._judged: tuple[Trial, ...] = ()

    def prepare(self, material: Material) -> None:
        self._material = material
        self._supernet = Supernet(material, rounds=self._rounds, paths=self._paths, norms=self._norms)
        path = _folder_of(material, self._supernet) / JOURNAL_FILE
        self._judged = read_trials(path) if self._supernet.is_trained and path.exists() else ()

    @property
    def seconds(self) -> float:
        training = 0.0 if self._supernet is None else self._supernet.progress.seconds
        return training + sum(trial.seconds for trial in self._judged)

    def propose(self, space: Space, inputs: PyramidSpec, trials: Sequence[Trial], rng: random.Random) -> Candidate:
        if self._material is None or self._supernet is None:
            raise PyrafuseError("the strategy supernet trains on the maps of a search: call prepare first")
        self._supernet.train(space, inputs)
        self._judge(self._material, self._supernet, space, inputs, trials)
        tried = {trial.fingerprint for trial in trials}
        best = next((trial for trial in rank(self._in_pool) if trial.fingerprint not in tried), None)
        return sample(space, inputs, rng) if best is None else restore(space, inputs, best)

    @property
    def _in_pool(self) -> list[Trial]:
        return [trial for trial in self._judged if trial.source == POOL]

    def _judge(
        self, material: Material, supernet: Supernet, space: Space, inputs: PyramidSpec, trials: Sequence[Trial]
    ) -> None:
        """Judge what an earlier session began, trials that others proposed, and as many graphs as there are to be."""
        known = {trial.fingerprint for trial in self._judged}
        others = [trial for trial in trials if trial.fingerprint not in known and trial.state == FINISHED]
        has_begun = any(trial.state == BEGUN for trial in self._judged)
        finished = sum(trial.state == FINISHED for trial in self._in_pool)
        size = self._pool + self._growth * len(trials)
        if not has_begun and not others and finished >= size:
            return
        head = {"judged by": "shared weights", "digest": supernet.digest}
        with open_journal(_folder_of(material, supernet), head) as journal:
            pool = Pool(journal, material, supernet, space, inputs)
            try:
                pool.go_on()
                pool.judge_tried(others)
                pool.grow(self._evolution, size)
            finally:
                self._judged = journal.trials

    def describe(self, trials: Sequence[Trial]) -> str:
        if self._supernet is None or not self._judged:
            return ""
        losses = losses_of(self._judged)
        own = {trial.fingerprint for trial in self._in_pool}
        both = [trial for trial in rank(trials) if trial.fingerprint in losses]

        def compare(what: str, chosen: Sequence[Trial]) -> str:
            first = [trial.rungs[0].loss for trial in chosen]
            found = correlate(what, [losses[trial.fingerprint] for trial in chosen], first)
            return f"{found} over {counted(found.count, 'trial')}"

        words = (
            f"shared weights took {duration(self._supernet.progress.seconds)} to train, and judged "
            f"{counted(len(losses), 'graph')} in {duration(sum(trial.seconds for trial in self._judged))}"
        )
        if len(both) < LEAST_TO_RANK:
            return f"{words}; too few of them are trials to say how well they rank"
        words += f"; {compare('Spearman correlation of their losses with those of the first rung', both)}"
        others = [trial for trial in both if trial.fingerprint not in own]
        if LEAST_TO_RANK <= len(others) < len(both):
            words += f", {compare('and without trials that they proposed', others)}"
        return words


def _folder_of(material: Material, supernet: Supernet) -> Path:
    """Where losses by these weights are kept: those by others are none of them."""
    return material.folder / f"shared-{supernet.digest[:12]}"
