"""Candidates shared out among workers that cost nothing: who trains what, who ends, and that it changes no number."""

import math
from collections import deque
from zlib import crc32

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.search.engines.sharing import MAX_ENDS, Answer, Crew
from pyrafuse.search.learners import Outcome, Rung
from pyrafuse.search.racing import TimeOver, race
from pyrafuse.search.settings import ProxySettings

SETTINGS = ProxySettings(rungs=(2, 6, 18), eta=3)
NAMES = [f"graph-{number}" for number in range(9)]


def judge(name, until):
    rungs = [Rung(steps, crc32(f"{name} {steps}".encode()) / 2**32, None, 1.0) for steps in SETTINGS.rungs]
    return Outcome(name, tuple(rung for rung in rungs if rung.steps <= until))


class FakeWorkers:
    """Answer in the order in which they were asked; the tasks numbered in ``ends`` end their worker instead."""

    def __init__(self, ends=(), unusable=()):
        self.ends, self.unusable = set(ends), set(unusable)
        self.kept: list[dict[str, int]] = []
        self.tasks: list[tuple[int, str, int]] = []
        self.steps = 0
        self.now = 0.0
        self.answers: deque[Answer] = deque()

    def start(self):
        number = len(self.kept)
        self.kept.append({})
        self.answers.append(Answer(number, problem="no files here" if number in self.unusable else ""))
        return number

    def train(self, worker, candidates, until, running):
        (name,) = candidates
        kept = {one: steps for one, steps in self.kept[worker].items() if one in running}
        assert set(kept) <= set(NAMES)
        if len(self.tasks) in self.ends:
            self.answers.append(Answer(worker, problem="killed"))
        else:
            self.steps += until - kept.get(name, 0)
            self.kept[worker] = {**kept, name: until}
            self.answers.append(Answer(worker, outcome=judge(name, until)))
        self.tasks.append((worker, name, until))

    def wait(self, seconds):
        if not self.answers or seconds <= 0:
            return None
        self.now += 0.5
        return self.answers.popleft()


def run(number=2, names=NAMES, seconds=math.inf, **options):
    workers, said, told = FakeWorkers(**options), [], []
    crew = Crew(workers, number, SETTINGS, said.append, clock=lambda: workers.now)
    outcomes = crew.race(dict.fromkeys(names), told.append, seconds=seconds)
    return workers, outcomes, told, said


def numbers(outcomes):
    return {name: [(rung.steps, rung.loss) for rung in one.rungs] for name, one in outcomes.items()}


def undisturbed():
    return race(
        dict.fromkeys(NAMES), lambda running, until: [judge(name, until) for name in running], SETTINGS, lambda _: None
    )


@pytest.mark.parametrize("number", [1, 2, 4, 20])
def test_any_number_of_workers_gives_what_one_process_gives(number):
    workers, outcomes, told, said = run(number)
    assert numbers(outcomes) == numbers(undisturbed())
    assert sorted(len(one.rungs) for one in outcomes.values()) == [1] * 6 + [2] * 2 + [3]
    assert [len(one.rungs) for one in told] == [1] * 9 + [2] * 3 + [3]
    assert said == [f"workers that are ready: {number} of {number}"]
    # no step is done twice: who goes on is trained where it was
    assert workers.steps == 9 * 2 + 3 * 4 + 12
    first = {name: worker for worker, name, until in workers.tasks if until == 2}
    assert all(first[name] == worker for worker, name, _ in workers.tasks)
    assert len(set(first.values())) == min(number, 9)


def test_seconds_sum_up_to_those_that_passed():
    workers, outcomes, _, _ = run(4)
    assert sum(rung.seconds for one in outcomes.values() for rung in one.rungs) == pytest.approx(workers.now - 2)
    assert workers.now == 0.5 * (4 + 9 + 3 + 1)


@pytest.mark.parametrize("end", range(13))
def test_a_worker_that_ends_changes_no_number_whenever_it_does(end):
    workers, outcomes, told, said = run(ends=[end])
    assert numbers(outcomes) == numbers(undisturbed())
    assert [len(one.rungs) for one in told] == [1] * 9 + [2] * 3 + [3]
    assert all(not one.reason for one in outcomes.values())
    assert len(workers.kept) == 3
    assert "a worker has ended: killed. Another one is asked for; what it kept, " in said[-1]
    assert sum(rung.seconds for one in outcomes.values() for rung in one.rungs) == pytest.approx(workers.now - 1)


def test_a_candidate_that_ends_every_worker_has_failed():
    workers, outcomes, _, said = run(1, ends=range(MAX_ENDS))
    assert outcomes["graph-0"] == Outcome("graph-0", (), "3 workers ended while they trained it; the last one: killed")
    assert [name for _, name, _ in workers.tasks[:4]] == ["graph-0"] * 3 + ["graph-1"]
    rest = {name: rungs for name, rungs in numbers(undisturbed()).items() if name != "graph-0"}
    assert {name: rungs[:1] for name, rungs in numbers(outcomes).items() if name != "graph-0"} == {
        name: rungs[:1] for name, rungs in rest.items()
    }
    assert len(said) == 1 + MAX_ENDS


def test_workers_that_cannot_be_used_are_told_and_those_that_are_left_do_all():
    workers, outcomes, _, said = run(3, unusable=[0, 2])
    assert numbers(outcomes) == numbers(undisturbed())
    assert {worker for worker, _, _ in workers.tasks} == {1}
    assert said == ["a worker is not used: no files here"] * 2 + ["workers that are ready: 1 of 3"]
    with pytest.raises(PyrafuseError, match="no worker is left: no files here"):
        run(2, unusable=[0, 1])


def test_time_that_is_over_ends_the_race():
    with pytest.raises(TimeOver):
        run(2, seconds=2.0)
    assert len(run(2, seconds=7.0)[1]) == 9
