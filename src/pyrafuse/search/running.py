"""The search itself: candidates are proposed, weighed, trained a batch at a time, and written down.

strategy -> candidate -> cost -> over the budget? next one : batch -> engine's rungs -> journal

Whatever is decided depends on the journal and the seed alone, so that a search which was stopped goes on as if it had
not been: of the batch that was interrupted, what was proposed stays, and is trained anew.
"""

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.interrupts import hold_interrupts
from pyrafuse.base.printable import counted
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, Journal, Trial
from pyrafuse.search.learners import Outcome
from pyrafuse.search.racing import Candidates, TimeOver
from pyrafuse.search.ranking import best_of
from pyrafuse.search.strategies.registry import STRATEGIES, Strategy, restore
from pyrafuse.training.progress import duration

RANDOM = "random"
MAX_TRIES = 50
"""Proposals of one trial, each tried before, after which draws are random; after as many of these the search ends."""
MAX_REFUSED = 300
"""Candidates in a row over the budget, after which the search ends."""


class Engine(Protocol):
    """Trains candidates: `Proxy` does on this machine."""

    def race(
        self, candidates: Candidates, tell: Callable[[Outcome], None], *, seconds: float = math.inf
    ) -> Mapping[str, Outcome]:
        """Judge candidates, and ``tell`` the outcome so far after each rung.

        The seconds of all rungs sum up to those that the race took, however many candidates are trained at a time.

        Returns:
            The outcome of each.

        Raises:
            TimeOver: If the race is not at its end after so many seconds.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """What a candidate may cost; None is no limit.

    Attributes:
        latency_ms: Milliseconds for one image.
        gflops: Billions of operations for one image.
        parameters: Number of parameters.
    """

    latency_ms: float | None = None
    gflops: float | None = None
    parameters: float | None = None

    def find_excess(self, cost: Mapping[str, float]) -> str:
        """What of ``cost`` is too much, in words; empty if nothing is."""
        for name, limit in vars(self).items():
            if limit is not None and name in cost and cost[name] > limit:
                return f"{describe_cost(name, cost[name])}, and {describe_cost(name, limit)} are allowed"
        return ""


def describe_cost(name: str, value: float) -> str:
    """``12.5 ms``, ``1.2 GFLOPs``, ``310,000 parameters``."""
    if name == "parameters":
        return f"{value:,.0f} parameters"
    return f"{value:.3g} {'ms' if name == 'latency_ms' else 'GFLOPs' if name == 'gflops' else 'MB'}"


@dataclass(frozen=True)
class Plan:
    """How candidates are looked for.

    Attributes:
        space: What may be chosen.
        inputs: Channels and strides of the backbone's maps.
        strategy: What proposes.
        source: Its name.
        limits: What a candidate may cost.
        batch: Number of candidates that are trained together.
        warmup: Number of batches that are drawn at random before the strategy's.
        random_every: After the warm-up one of so many batches is drawn at random, to compare the strategy with;
            0 for none.
        seed: Seed of all proposals.
    """

    space: Space
    inputs: PyramidSpec
    strategy: Strategy
    source: str
    limits: Limits
    batch: int = 9
    warmup: int = 2
    random_every: int = 4
    seed: int = 0

    def source_of(self, batch: int) -> str:
        """What proposes the candidates of a batch, counted from 0 after the necks made by hand."""
        after = batch - self.warmup
        is_random = after < 0 or (self.random_every > 0 and after % self.random_every == self.random_every - 1)
        return RANDOM if is_random else self.source


class Search:
    """A search in an open journal.

    Args:
        journal: What was done so far.
        plan: How candidates are looked for.
        engine: What trains them.
        cost: Parameters, GFLOPs and latency of a candidate, by name; one of them at least.
        by_hand: Necks that were made by hand, by name: they are trained first, and strategies know them.
        tell: Function that is called with each sentence for the user.
        watch: Called after each change of the journal.
    """

    def __init__(
        self,
        journal: Journal,
        plan: Plan,
        engine: Engine,
        cost: Callable[[Candidate], Mapping[str, float]],
        *,
        by_hand: Mapping[str, Candidate],
        tell: Callable[[str], None] = lambda _: None,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._plan = plan
        self._engine = engine
        self._cost = cost
        self._by_hand = by_hand
        self._tell = tell
        self._watch = watch
        self._random = STRATEGIES.create(RANDOM)
        self._is_exhausted = False

    def run(self, *, seconds: float, clock: Callable[[], float] = time.monotonic, began: float | None = None) -> None:
        """Search until ``seconds`` are over, those of earlier sessions included, or the space is exhausted.

        Whatever the first batch takes, it is trained, unless no seconds are given at all. A later one that would not be
        done in time, by the mean seconds of a candidate, is not begun; one that is not done when the time is over is
        trained anew in the next session.

        Args:
            seconds: Seconds of the whole search.
            clock: Seconds from any start.
            began: Time of ``clock`` when this session began; by default now.

        Raises:
            PyrafuseError: If no candidate is within the budget, with the cheapest.
        """
        began = clock() if began is None else began
        before = self._count_own() + sum(
            trial.cut_seconds + (trial.seconds if trial.state != BEGUN else 0.0) for trial in self._journal.trials
        )
        spent, num_trained = self._count_spent()
        while True:
            start, own = clock(), self._plan.strategy.seconds
            left = seconds - before - (start - began)
            if seconds <= 0 or (num_trained and self._plan.batch * spent / num_trained >= left):
                return
            batch = self._fill_batch()
            if not batch:
                return
            ready = clock()
            try:
                self._train(batch, seconds=seconds - before - (ready - began) if num_trained else math.inf)
            except TimeOver:
                self._cut(batch, clock() - ready)
                return
            own = self._plan.strategy.seconds - own  # says nothing of how long the next batch takes
            spent, num_trained = spent + clock() - start - own, num_trained + len(batch)
            left = seconds - before - (clock() - began)
            self._tell_progress(left)

    def _count_spent(self) -> tuple[float, int]:
        """Seconds that candidates of earlier sessions took, and their number."""
        trained = [trial for trial in self._journal.trials if trial.state == FINISHED]
        return sum(trial.seconds for trial in trained), len(trained)

    def _count_own(self) -> float:
        """Seconds of the strategy's own work in all sessions, whether a trial has come of it or not."""
        return max(self._plan.strategy.seconds, sum(trial.own_seconds for trial in self._journal.trials))

    # proposals

    def _fill_batch(self) -> list[Trial]:
        """The trials that are trained next: those that are begun already, and new ones until there are enough."""
        tried = {trial.source for trial in self._journal.trials}
        for name, candidate in self._by_hand.items():
            if name not in tried:
                self._begin(name, candidate)
        waiting = [trial for trial in self._journal.trials if trial.state == BEGUN]
        if any(trial.source in self._by_hand for trial in waiting):
            return waiting
        source = self._plan.source_of(self._count_trained() // self._plan.batch)
        refused = 0
        while len(waiting) < self._plan.batch and not self._is_exhausted:
            candidate = self._propose(source)
            if candidate is None:
                self._is_exhausted = True
                self._tell(f"the last {2 * MAX_TRIES} proposals were tried before: the space may hold no more graphs")
                break
            trial = self._begin(source, candidate)
            if trial.state == BEGUN:
                waiting.append(trial)
            refused = 0 if trial.state == BEGUN else refused + 1
            if refused == MAX_REFUSED:
                self._end_over_budget(has_any=bool(waiting))
        return waiting

    def _count_trained(self) -> int:
        """Trials that were trained or failed in it, without those made by hand; none without a cost was."""
        return sum(
            trial.source not in self._by_hand and trial.state in (FINISHED, FAILED) and bool(trial.cost)
            for trial in self._journal.trials
        )

    def _propose(self, source: str) -> Candidate | None:
        """A candidate that was not tried, as the next trial; none where `MAX_TRIES` do not give any."""
        plan, trials = self._plan, self._journal.trials
        tried = {trial.fingerprint for trial in trials}
        strategy = self._random if source == RANDOM else plan.strategy
        for attempt in range(2 * MAX_TRIES):
            rng = random.Random(f"{plan.seed}/{len(trials)}/{attempt}")
            by = strategy if attempt < MAX_TRIES else self._random  # the strategy's own corner may be exhausted
            candidate = by.propose(plan.space, plan.inputs, trials, rng)
            if name_candidate(candidate, plan.inputs) not in tried:
                return candidate
        return None

    def _begin(self, source: str, candidate: Candidate) -> Trial:
        """The trial of ``candidate``, written down; it is over at once if it costs too much, or cannot be weighed."""
        values = {
            "source": source,
            "answers": candidate.answers,
            "fingerprint": name_candidate(candidate, self._plan.inputs),
            "size": candidate.size,
        }
        try:
            cost, reason = self._cost(candidate), ""
        except Exception as error:  # operators of users fail in their own ways
            cost, reason = {}, f"it cannot be weighed: {error or type(error).__name__}"
        own = self._count_own() - sum(trial.own_seconds for trial in self._journal.trials)
        trial = self._journal.begin(**values, cost=cost)
        if own > 0:
            self._journal.prepare(trial.number, own)
        if reason:
            self._journal.fail(trial.number, reason)
            self._tell(f"trial {trial.number} ({source}) failed: {reason}")
        elif excess := self._plan.limits.find_excess(cost):
            self._journal.refuse(trial.number, excess)
            if source in self._by_hand:
                self._tell(f"{source} is over the budget: {excess}")
        self._watch()
        return self._journal.trials[trial.number]

    def _end_over_budget(self, *, has_any: bool) -> None:
        """Say what the cheapest candidate costs.

        Raises:
            PyrafuseError: If nothing was within the budget, in this batch or before.
        """
        trials = self._journal.trials
        self._is_exhausted = True
        if has_any or any(trial.state == FINISHED for trial in trials):
            self._tell(f"the last {MAX_REFUSED} proposals were over the budget: the search ends here")
            return
        over = [trial for trial in trials if trial.state == OVER_BUDGET]
        if not over:
            raise PyrafuseError(f"all of {counted(len(trials), 'graph')} failed; the last one: {trials[-1].reason}")
        limit = next(name for name, value in vars(self._plan.limits).items() if value is not None)
        cheapest = min(over, key=lambda trial: trial.cost.get(limit, math.inf))
        raise PyrafuseError(
            f"none of {counted(len(over), 'graph')} is within the budget. The cheapest, trial {cheapest.number} "
            f"({cheapest.source}), has {describe_cost(limit, cheapest.cost[limit])}: {cheapest.reason}. Allow more, or "
            "give a smaller size, fewer channels or a lighter backbone"
        )

    # training

    def _train(self, batch: Sequence[Trial], *, seconds: float) -> None:
        """Train a batch, and write down what comes of it while it goes on.

        Raises:
            TimeOver: If it is not done after so many seconds.
        """
        plan, journal = self._plan, self._journal
        numbers = {trial.fingerprint: trial.number for trial in batch}
        graphs = {trial.fingerprint: (restore(plan.space, plan.inputs, trial).graph, trial.size) for trial in batch}
        written = dict.fromkeys(numbers, 0)

        def write(outcome: Outcome) -> None:
            number, done = numbers[outcome.fingerprint], written[outcome.fingerprint]
            for place, rung in enumerate(outcome.rungs[done:], done):
                journal.reach(number, place, rung)
            written[outcome.fingerprint] = len(outcome.rungs)
            self._watch()

        outcomes = self._engine.race(graphs, write, seconds=seconds)
        with hold_interrupts():  # what is left of a batch would be trained anew in other company
            for trial in batch:
                outcome = outcomes[trial.fingerprint]
                write(outcome)
                if outcome.reason:
                    journal.fail(trial.number, outcome.reason)
                    self._tell(f"trial {trial.number} ({trial.source}) failed: {outcome.reason}")
                else:
                    journal.finish(trial.number)
        self._watch()

    def _cut(self, batch: Sequence[Trial], seconds: float) -> None:
        """Write down that the time was over before ``batch`` was done, which took so many seconds."""
        with hold_interrupts():
            for trial in batch:
                self._journal.cut(trial.number, seconds / len(batch))
        self._watch()
        self._tell(
            f"the time is over: the last batch, {counted(len(batch), 'graph')}, is not finished after "
            f"{duration(seconds)}; the same command with more --minutes trains it anew"
        )

    def _tell_progress(self, left: float) -> None:
        trials = self._journal.trials
        trained = sum(trial.state == FINISHED for trial in trials)
        best = best_of(trials)
        words = f"{counted(trained, 'graph')} trained"
        if over := sum(trial.state == OVER_BUDGET for trial in trials):
            words += f", {over} over the budget"
        if best is not None:
            words += f"; best so far: trial {best.number} ({best.source}), {describe_result(best)}"
        self._tell(f"{words}; {f'about {duration(left)} left' if left > 0 else 'the time is over'}")


def name_candidate(candidate: Candidate, inputs: PyramidSpec) -> str:
    """The same for candidates that compute the same at the same size."""
    return f"{fingerprint(candidate.graph, inputs)}-{candidate.size}"


def describe_result(trial: Trial) -> str:
    """What a trial reached, in words."""
    reached = trial.rungs[-1]
    words = f"loss {reached.loss:.3f}" if reached.ap is None else f"AP {reached.ap:.3f}, loss {reached.loss:.3f}"
    costs = [describe_cost(name, trial.cost[name]) for name in ("latency_ms", "parameters") if name in trial.cost]
    return ", ".join([words, *costs])
