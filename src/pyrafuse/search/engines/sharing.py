"""Candidates of a race shared out among workers, each of which trains one at a time and keeps it for the next rung.

candidates of a rung -> idle workers -> answers: outcomes, or the end of a worker -> outcomes of the rung
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.printable import counted
from pyrafuse.search.learners import Outcome
from pyrafuse.search.racing import Candidates, TimeOver, race
from pyrafuse.search.settings import ProxySettings

MAX_ENDS = 3
"""Workers that may end while they train a candidate; then it has failed, or it would end all of them."""

PATIENCE_S = 60.0
"""Seconds after which a search that has some of its workers begins."""


@dataclass(frozen=True)
class Answer:
    """What is known of a worker.

    Attributes:
        worker: Its number.
        outcome: Outcome of the candidate that it trained; without one it is ready for the first.
        problem: Why it cannot be used, or has ended, in words; empty where it goes on.
    """

    worker: int
    outcome: Outcome | None = None
    problem: str = ""


class Workers(Protocol):
    """Processes that train, wherever they are."""

    def start(self) -> int:
        """Ask for another worker, which answers once it is ready; its number."""
        ...

    def train(self, worker: int, candidates: Candidates, until: int, running: Collection[str]) -> None:
        """Let a worker train candidates up to step ``until``, and forget those that are not ``running`` any more."""
        ...

    def wait(self, seconds: float) -> Answer | None:
        """The next answer; none where there is none in so many seconds."""
        ...


class Crew:
    """An engine: workers and what each of them keeps.

    Args:
        workers: Processes that train.
        number: How many of them to ask for.
        settings: How candidates are judged.
        tell: Function that is called with each sentence for the user.
        clock: Seconds from any start.

    Raises:
        PyrafuseError: If none of them can be used.
    """

    def __init__(
        self,
        workers: Workers,
        number: int,
        settings: ProxySettings,
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workers = workers
        self._settings = settings
        self._tell = tell
        self._clock = clock
        self._starting = {workers.start() for _ in range(number)}
        self._idle: list[int] = []
        self._busy: dict[int, str] = {}
        self._keepers: dict[str, int] = {}
        self._known: dict[str, Outcome] = {}
        self._ends: Counter[str] = Counter()
        self._gather(number)

    def _gather(self, number: int) -> None:
        """Wait until all workers are ready: they would disturb the measurement of latencies while they start."""
        until = self._clock() + PATIENCE_S
        while self._starting and (answer := self._workers.wait(until - self._clock())):
            self._hear(answer)
        self._tell(f"workers that are ready: {len(self._idle)} of {number}")

    def race(
        self, candidates: Candidates, tell: Callable[[Outcome], None] = lambda _: None, *, seconds: float = math.inf
    ) -> Mapping[str, Outcome]:
        """As `pyrafuse.search.running.Engine`."""
        deadline = self._clock() + seconds
        self._keepers, self._known, self._ends = {}, {}, Counter()

        def train(running: Candidates, until: int) -> list[Outcome]:
            start = self._clock()
            outcomes = self._train(running, until, deadline)
            return self._settle(outcomes, self._clock() - start)

        return race(candidates, train, self._settings, tell)

    def _train(self, running: Candidates, until: int, deadline: float) -> list[Outcome]:
        """Train a rung; of a candidate that ended its workers, what was known before, with the reason."""
        done: dict[str, Outcome] = {}
        while len(done) < len(running):
            waiting = [name for name in running if name not in done and name not in self._busy.values()]
            for worker in sorted(self._idle):
                if (name := self._choose(worker, waiting)) is not None:
                    waiting.remove(name)
                    self._idle.remove(worker)
                    self._busy[worker], self._keepers[name] = name, worker
                    self._workers.train(worker, {name: running[name]}, until, frozenset(running))
            answer = self._workers.wait(deadline - self._clock())
            if answer is None:
                raise TimeOver
            name = self._busy.get(answer.worker)
            self._hear(answer)
            if name is not None and answer.outcome is not None:
                done[name] = answer.outcome
            elif name is not None and self._ends[name] == MAX_ENDS:
                reason = f"{MAX_ENDS} workers ended while they trained it; the last one: {answer.problem}"
                done[name] = replace(self._known.get(name, Outcome(name, ())), reason=reason)
        return [done[name] for name in running]

    def _choose(self, worker: int, waiting: Collection[str]) -> str | None:
        """What an idle worker trains next: what it keeps, else what no worker keeps."""
        kept = [name for name in waiting if self._keepers.get(name) == worker]
        free = [name for name in waiting if name not in self._keepers]
        return next(iter(kept + free), None)

    def _hear(self, answer: Answer) -> None:
        """Note what became of a worker.

        Raises:
            PyrafuseError: If there is none left.
        """
        worker = answer.worker
        self._starting.discard(worker)
        trained = self._busy.pop(worker, None)
        if not answer.problem:
            self._idle.append(worker)
            return
        kept = [name for name, keeper in self._keepers.items() if keeper == worker]
        self._keepers = {name: keeper for name, keeper in self._keepers.items() if keeper != worker}
        if trained is None:
            self._tell(f"a worker is not used: {answer.problem}")
        else:
            self._ends[trained] += 1
            self._starting.add(self._workers.start())
            self._tell(
                f"a worker has ended: {answer.problem}. Another one is asked for; what it kept, "
                f"{counted(len(kept), 'graph')} of this batch, is trained anew"
            )
        if not (self._idle or self._busy or self._starting):
            raise PyrafuseError(f"no worker is left: {answer.problem}")

    def _settle(self, outcomes: list[Outcome], seconds: float) -> list[Outcome]:
        """Outcomes after a rung that took ``seconds`` in all, of which each new rung gets its share.

        Rungs before stay as they were told, also of a candidate that was trained anew.
        """
        before = {one.fingerprint: self._known.get(one.fingerprint, Outcome("", ())).rungs for one in outcomes}
        fresh = {one.fingerprint: one.rungs[len(before[one.fingerprint]) :] for one in outcomes}
        spent = math.fsum(rung.seconds for rungs in fresh.values() for rung in rungs)
        for one in outcomes:
            name = one.fingerprint
            new = [replace(rung, seconds=rung.seconds * seconds / max(spent, 1e-9)) for rung in fresh[name]]
            self._known[name] = replace(one, rungs=(*before[name], *new))
        return [self._known[one.fingerprint] for one in outcomes]
