"""The loop on an engine that costs nothing: batches, budgets, failures, and going on as if nothing had stopped it."""

import math
import random
from dataclasses import replace

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Space
from pyrafuse.search.halving import promote
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, open_journal
from pyrafuse.search.learners import Outcome, Rung
from pyrafuse.search.racing import TimeOver
from pyrafuse.search.running import Limits, Plan, Search, name_candidate
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.at_random import Random
from pyrafuse.search.strategies.registry import STRATEGIES, restore

INPUTS = PyramidSpec((16, 24, 32), (8, 16, 32))
SPACE = Space(sizes=(64, 96), channels=(16, 32), max_merges=6)
HEAD = {"seed": 0}


class Clock:
    """Time that passes only when an engine trains."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class FakeEngine:
    """Losses by the number of merges; two rungs, a third of a batch goes on; each rung takes a second a candidate."""

    def __init__(self, clock, *, stop_after=None, fails=lambda graph: False, slow_from=99):
        self.clock, self.stop_after, self.fails, self.slow_from = clock, stop_after, fails, slow_from
        self.batches: list[list[str]] = []

    def race(self, candidates, tell, *, seconds=math.inf):
        self.batches.append(list(candidates))
        if len(self.batches) > self.slow_from:
            self.clock.now += min(seconds, 1e6)
            raise TimeOver
        outcomes = {}
        losses = {name: 20.0 - len(graph.merges) for name, (graph, _) in candidates.items()}
        for name, (graph, _) in candidates.items():
            self.clock.now += 1
            if self.fails(graph):
                outcomes[name] = Outcome(name, (), "OutOfMemoryError: no memory")
            else:
                outcomes[name] = Outcome(name, (Rung(10, losses[name], None, 1.0),))
            tell(outcomes[name])
            if self.stop_after is not None:
                self.stop_after -= 1
                if self.stop_after < 0:
                    raise KeyboardInterrupt
        for name in promote({name: losses[name] for name, one in outcomes.items() if one.rungs} or losses, 3):
            self.clock.now += 1
            rungs = (*outcomes[name].rungs, Rung(30, losses[name], (20 - losses[name]) / 20, 1.0))
            outcomes[name] = Outcome(name, rungs)
            tell(outcomes[name])
        return outcomes


def weigh(candidate):
    return {"latency_ms": float(len(candidate.graph.merges)), "parameters": 1000.0 * candidate.size}


def by_hand():
    return {name: sample(SPACE, INPUTS, random.Random(name)) for name in ("fpn", "bifpn")}


class Session:
    """One process that searches in a folder."""

    def __init__(
        self,
        folder,
        *,
        strategy="evolution",
        limits=None,
        seconds=60.0,
        cost=weigh,
        space=SPACE,
        inputs=INPUTS,
        hand=None,
        clock=None,
        **engine,
    ):
        self.said: list[str] = []
        clock = clock or Clock()
        self.engine = FakeEngine(clock, **engine)
        with open_journal(folder, HEAD) as journal:
            plan = Plan(
                space,
                INPUTS,
                STRATEGIES.create(strategy) if isinstance(strategy, str) else strategy,
                strategy if isinstance(strategy, str) else "own",
                limits or Limits(),
                batch=6,
                warmup=1,
                random_every=3,
            )
            hand = by_hand() if hand is None else hand
            search = Search(journal, plan, self.engine, cost, by_hand=hand, tell=self.said.append)
            try:
                search.run(seconds=seconds, clock=clock)
            finally:
                self.trials = journal.trials


def test_batches_go_from_necks_made_by_hand_over_random_draws_to_the_strategy(tmp_path):
    session = Session(tmp_path / "s", seconds=60.0)
    trials = session.trials
    assert [trial.source for trial in trials[:2]] == ["fpn", "bifpn"]
    sources = [trials[2 + first].source for first in range(0, len(trials) - 2, 6)]
    assert sources == ["random", "evolution", "evolution", "random", "evolution", "evolution", "random"]
    assert [len(batch) for batch in session.engine.batches] == [2, 6, 6, 6, 6, 6, 6, 6]
    assert {trial.state for trial in trials} == {FINISHED}
    # a batch of six takes 8 s, and the first one 3: a ninth would end after 60 s
    assert session.engine.clock.now - 100 == 3 + 7 * 8
    assert sum(trial.seconds for trial in trials) == 59
    assert sum(len(trial.rungs) == 2 for trial in trials) == 1 + 7 * 2
    assert len({trial.fingerprint for trial in trials}) == len(trials)
    for trial in trials:
        candidate = restore(SPACE, INPUTS, trial)
        assert name_candidate(candidate, INPUTS) == trial.fingerprint
        assert trial.rungs[0].loss == 20 - len(candidate.graph.merges)
    assert "44 graphs trained; best so far: trial" in session.said[-1]
    assert session.said[-1].endswith("about 1 s left")


@pytest.mark.parametrize("strategy", ["evolution", "tpe"])
def test_a_search_that_is_stopped_anywhere_ends_as_one_that_is_not(tmp_path, strategy):
    whole = Session(tmp_path / "whole", strategy=strategy, seconds=60.0)
    for stop_after in (1, 5, 9, 17):
        folder = tmp_path / f"stopped-{stop_after}"
        with pytest.raises(KeyboardInterrupt):
            Session(folder, strategy=strategy, stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            Session(folder, strategy=strategy, stop_after=4)
        assert Session(folder, strategy=strategy).trials == whole.trials


def test_a_search_goes_on_where_its_time_was_over(tmp_path):
    whole = Session(tmp_path / "whole", seconds=60.0).trials
    first = Session(tmp_path / "s", seconds=20.0)
    assert (len(first.engine.batches), sum(trial.seconds for trial in first.trials)) == (3, 19)
    again = Session(tmp_path / "s", seconds=20.0)
    assert again.engine.batches == []
    longer = Session(tmp_path / "s", seconds=60.0)
    assert longer.trials == whole[: len(longer.trials)]
    assert len(longer.trials) > len(first.trials)
    assert sum(trial.seconds for trial in longer.trials) <= 60


def test_a_batch_that_would_not_be_done_in_time_is_not_begun(tmp_path):
    # two necks took 3 s: six candidates would take 9, and 8.5 are left
    session = Session(tmp_path / "s", seconds=11.5)
    assert [len(batch) for batch in session.engine.batches] == [2]
    assert [len(batch) for batch in Session(tmp_path / "t", seconds=12.5).engine.batches] == [2, 6]


def test_a_batch_that_the_time_cuts_off_is_counted_and_trained_anew(tmp_path):
    whole = Session(tmp_path / "whole", seconds=60.0).trials
    # two batches take 11 s, the third one would take 8.25 by their mean, and takes more
    cut = Session(tmp_path / "s", seconds=20.0, slow_from=2)
    assert [len(batch) for batch in cut.engine.batches] == [2, 6, 6]
    assert cut.engine.clock.now == 120
    assert [trial.state for trial in cut.trials] == [FINISHED] * 8 + [BEGUN] * 6
    assert [trial.cut_seconds for trial in cut.trials] == [0.0] * 8 + [1.5] * 6
    assert cut.said[-1].startswith("the time is over: the last batch, 6 graphs, is not finished after 9 s; the same")
    for seconds in (20.0, 28.0):  # 20 are over, and 8.25 are needed
        assert Session(tmp_path / "s", seconds=seconds).engine.batches == []
    longer = Session(tmp_path / "s", seconds=60.0)
    again = [replace(trial, cut_seconds=0.0) for trial in longer.trials]
    assert again == list(whole[: len(again)])
    assert len(again) == 8 + 6 * 4  # 8 s are left, and a fifth would take 8.06
    assert sum(trial.cut_seconds for trial in longer.trials) == 9
    assert sum(trial.seconds for trial in longer.trials) == 11 + 4 * 8


class Prepared(Random):
    """Works ten seconds before it first proposes, and keeps what it has made."""

    seconds = 0.0

    def __init__(self, clock, seconds=0.0):
        self.clock, self.seconds = clock, seconds

    def propose(self, space, inputs, trials, rng):
        if not self.seconds:
            self.clock.now += 10
            self.seconds = 10.0
        return super().propose(space, inputs, trials, rng)


def test_work_of_the_strategy_is_part_of_the_search_and_of_no_candidate(tmp_path):
    clock = Clock()
    session = Session(tmp_path / "s", strategy=Prepared(clock), clock=clock)
    # 3 + 8, then 10 for the strategy, and 8 a batch: another would end after 61 s
    assert clock.now - 100 == 3 + 8 + 10 + 4 * 8
    assert [trial.own_seconds for trial in session.trials] == [0.0] * 8 + [10.0] + [0.0] * 23
    assert session.trials[8].source == "own"
    assert sum(trial.seconds for trial in session.trials) == 3 + 5 * 8
    for strategy in ("random", Prepared(Clock(), seconds=10.0)):  # its work may be lost, the time is spent
        assert Session(tmp_path / "s", strategy=strategy, seconds=61.0).engine.batches == []
    # another session has worked, and was killed before it proposed anything: the first batch is trained all the same
    again = Session(tmp_path / "t", strategy=Prepared(Clock(), seconds=60.0))
    assert [len(batch) for batch in again.engine.batches] == [2]


def test_the_first_batch_is_always_finished(tmp_path):
    trials = Session(tmp_path / "s", seconds=0.5).trials
    assert [trial.state for trial in trials] == [FINISHED] * 2


def test_what_is_over_the_budget_is_not_trained(tmp_path):
    session = Session(tmp_path / "s", limits=Limits(latency_ms=5.0))
    over = [trial for trial in session.trials if trial.state == OVER_BUDGET]
    assert over
    assert {trial.reason for trial in over} == {"6 ms, and 5 ms are allowed"}
    assert all(trial.cost["latency_ms"] <= 5 for trial in session.trials if trial.state == FINISHED)
    trained = {name for batch in session.engine.batches for name in batch}
    assert not trained & {trial.fingerprint for trial in over}


def test_without_any_graph_in_the_budget_the_cheapest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pyrafuse.search.running.MAX_REFUSED", 20)
    with pytest.raises(PyrafuseError) as raised:
        Session(tmp_path / "s", limits=Limits(parameters=1000.0))
    message = str(raised.value)
    assert message.startswith("none of 22 graphs is within the budget. The cheapest, trial ")
    assert "has 64,000 parameters: 64,000 parameters, and 1,000 parameters are allowed. Allow more" in message


def test_a_trial_that_fails_is_named_and_ends_nothing(tmp_path):
    session = Session(tmp_path / "s", seconds=40.0, fails=lambda graph: len(graph.merges) == 6)
    failed = [trial for trial in session.trials if trial.state == FAILED]
    assert failed
    assert {trial.reason for trial in failed} == {"OutOfMemoryError: no memory"}
    told = [f"trial {trial.number} ({trial.source}) failed: OutOfMemoryError: no memory" for trial in failed]
    assert [line for line in session.said if "failed" in line] == told
    assert session.trials[-1].state in (FINISHED, FAILED)
    assert len(session.engine.batches) > 3


def test_what_cannot_be_weighed_has_failed(tmp_path):
    def cost(candidate):
        if candidate.size == 96:
            raise RuntimeError("the operator has no kernel")
        return weigh(candidate)

    session = Session(tmp_path / "s", cost=cost)
    reasons = {trial.size: trial.reason for trial in session.trials}
    assert reasons == {64: "", 96: "it cannot be weighed: the operator has no kernel"}
    assert {trial.state for trial in session.trials if trial.size == 96} == {FAILED}


def test_a_space_of_few_graphs_is_searched_and_left(tmp_path):
    few = Space(
        sizes=(64,), channels=(16,), fusions=("sum",), ups=("nearest",), downs=("max_pool",), stacks=(1,),
        outputs=((3, 4),), reads=((3, 4),), max_merges=2, max_inputs=2,
        convs={"plain": SPACE.convs["plain_3x3"]}, projects={"plain": SPACE.projects["plain"]},
    )  # fmt: skip
    session = Session(tmp_path / "s", space=few, inputs=PyramidSpec((16, 24), (8, 16)), hand={}, seconds=1e5)
    assert "tried before: the space may hold no more graphs" in session.said[-2]
    names = [trial.fingerprint for trial in session.trials]
    assert 50 < len(names) == len(set(names)) < 300
    assert BEGUN not in {trial.state for trial in session.trials}
