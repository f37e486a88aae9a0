"""Each strategy on an objective that costs nothing: better than chance, reproducible, and the same when resumed."""

import random
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest

from pyrafuse.base.errors import PyrafuseError, UnknownNameError
from pyrafuse.base.parts import Part
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.choices import Candidate, Space
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, Trial
from pyrafuse.search.learners import Rung
from pyrafuse.search.ranking import best_of, rank
from pyrafuse.search.strategies.registry import STRATEGIES, restore

INPUTS = PyramidSpec((16, 24, 32), (8, 16, 32))
SPACE = Space(sizes=(64, 96), channels=(16, 32), max_merges=8)
ANY = (BEGUN, FAILED)
UNFINISHED = {"tpe": ANY}
"""States of trials that a strategy learns nothing of, where it learns of those over the budget."""
LEARNING = ("controller", "evolution", "nsga2", "tpe")


def judge(candidate: Candidate) -> float:
    """Lower is better: 8 is the worst, and 0 are eight merges of softmax with three inputs and no convolution."""
    merges = candidate.graph.merges
    return 8.0 - sum(
        0.5 * (merge.fusion == "softmax") + 0.25 * (merge.conv is None) + 0.25 * (len(merge.inputs) == 3)
        for merge in merges
    )


def search(name, length, *, seed=0, trials=(), cost_of=lambda _: {}) -> tuple[Trial, ...]:
    """Go on after ``trials`` with a strategy that knows nothing else."""
    strategy = STRATEGIES.create(name)
    done = list(trials)
    while len(done) < length:
        number = len(done)
        candidate = strategy.propose(SPACE, INPUTS, done, random.Random(f"{seed}/{number}"))
        rung = Rung(10, judge(candidate), None, 1.0)
        cost = cost_of(candidate)
        done.append(Trial(number, name, candidate.answers, str(number), candidate.size, cost, FINISHED, (rung,)))
    return tuple(done)


def test_all_strategies_are_known():
    assert STRATEGIES.names() == ("controller", "evolution", "nsga2", "random", "supernet", "tpe")
    with pytest.raises(UnknownNameError, match="unknown strategy 'evolutoin'; did you mean 'evolution'"):
        STRATEGIES.create("evolutoin")


@pytest.mark.parametrize("name", [*LEARNING, "random"])
def test_a_resumed_search_proposes_what_the_uninterrupted_one_does(name):
    whole = search(name, 28, seed=3)
    for stop in (5, 17, 27):
        assert search(name, 28, seed=3, trials=whole[:stop]) == whole
    assert search(name, 10, seed=4) != whole[:10]


@pytest.mark.parametrize("name", LEARNING)
def test_a_strategy_is_ahead_of_random_draws_at_equal_cost(name):
    def mean_of_last(strategy):
        return mean(trial.rungs[0].loss for seed in range(2) for trial in search(strategy, 50, seed=seed)[34:])

    assert mean_of_last(name) < mean_of_last("random") - 0.5


def test_the_strategy_of_the_contributors_page_climbs(monkeypatch):
    monkeypatch.setattr(STRATEGIES, "_entries", dict(STRATEGIES._entries))
    page = (Path(__file__).resolve().parents[3] / "CONTRIBUTING.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (block,) = (text for text in blocks if "@STRATEGIES.register" in text)
    exec(compile(block, "climbing.py", "exec"), {"__name__": "climbing"})
    whole = search("climbing", 40)
    assert rank(whole)[0].rungs[0].loss < whole[0].rungs[0].loss
    assert search("climbing", 40, trials=whole[:21]) == whole


def test_evolution_finds_a_better_best_than_random_draws():
    def mean_of_best(strategy):
        return mean(rank(search(strategy, 80, seed=seed))[0].rungs[0].loss for seed in range(5))

    assert mean_of_best("evolution") < mean_of_best("random") - 0.5


def test_nsga2_looks_for_what_costs_little():
    def mean_merges(cost_of):
        found = [trial for seed in range(2) for trial in search("nsga2", 96, seed=seed, cost_of=cost_of)[48:]]
        return mean(len(restore(SPACE, INPUTS, trial).graph.merges) for trial in found)

    cheap = mean_merges(lambda candidate: {"latency_ms": float(len(candidate.graph.merges))})
    assert cheap < mean_merges(lambda _: {}) - 1


def test_tpe_keeps_to_a_budget_that_good_graphs_exceed():
    tpe, done = STRATEGIES.create("tpe"), list(search("random", 12))
    for number in range(12, 42):
        candidate = tpe.propose(SPACE, INPUTS, done, random.Random(number))
        trial = Trial(number, "tpe", candidate.answers, str(number), candidate.size, {}, FINISHED)
        if len(candidate.graph.merges) > 5:
            done.append(replace(trial, state=OVER_BUDGET))
        else:
            done.append(replace(trial, rungs=(Rung(10, judge(candidate), None, 1.0),)))
    over = [trial.state == OVER_BUDGET for trial in done[12:]]
    assert sum(over[15:]) < 5, over


@pytest.mark.parametrize("name", LEARNING)
def test_unfinished_trials_say_nothing(name):
    done = search(name, 24)
    strategy = STRATEGIES.create(name)
    others = [
        replace(trial, number=24 + place, state=state, rungs=() if state == OVER_BUDGET else trial.rungs)
        for place, (trial, state) in enumerate(zip(done, UNFINISHED.get(name, (*ANY, OVER_BUDGET)), strict=False))
    ]
    first = strategy.propose(SPACE, INPUTS, done, random.Random(1))
    assert STRATEGIES.create(name).propose(SPACE, INPUTS, [*done, *others], random.Random(1)) == first
    # what a strategy keeps for speed changes nothing, whatever it was asked before
    strategy.propose(Space(max_merges=4), INPUTS, (), random.Random(1))
    assert strategy.propose(SPACE, INPUTS, done, random.Random(1)) == first


def test_a_strategy_without_trials_draws():
    for name in (*LEARNING, "random"):
        assert STRATEGIES.create(name).propose(SPACE, INPUTS, (), random.Random(0)).size in SPACE.sizes


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evolution", {"population": 1}, "population must be a whole number, 2 or more, got 1"),
        ("evolution", {"crossover": 1.5}, "crossover must be in 0..1, got 1.5"),
        ("controller", {"batch": 0}, "batch must be a whole number, 1 or more"),
        ("nsga2", {"population": 0}, "population must be"),
        ("tpe", {"startup": -1}, "startup must be"),
        ("random", {"luck": 7}, "the strategy random takes no option 'luck'"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(PyrafuseError, match=message):
        STRATEGIES.build(Part(name, options))


def trial(number: int, *losses: float, ap: float | None = None, state: str = FINISHED) -> Trial:
    rungs = [Rung(10, loss, None, 1.0) for loss in losses]
    rungs[-1:] = [replace(rung, ap=ap) for rung in rungs[-1:]]
    return Trial(number, "random", {}, str(number), 64, {}, state, tuple(rungs))


def test_later_figures_order_those_that_have_them():
    trials = [
        trial(0, 5.0),
        trial(1, 3.0, 2.0),
        trial(2, 4.0, 1.0),
        trial(3, 2.0),
        trial(4, 3.5),
        trial(5, 0.1, state=FAILED),
        trial(6, state=OVER_BUDGET),
    ]
    # 3 (2.0), 1 (3.0), 4 (3.5), 2 (4.0), 0 (5.0) by the first rung; 1 and 2 each lead in one, and the later one decides
    assert [one.number for one in rank(trials)] == [3, 2, 4, 1, 0]
    assert best_of(trials).number == 2
    trials += [trial(7, 7.0, 5.0, 4.0, ap=0.25), trial(8, 6.0, 6.0, 5.0, ap=0.5)]
    assert [one.number for one in rank(trials)] == [3, 2, 4, 1, 0, 8, 7]
    assert best_of(trials).number == 8  # each leads in two of four figures
    trials += [trial(9, 5.5, 4.0, 3.0, ap=0.125)]
    assert [one.number for one in rank(trials)][-3:] == [9, 8, 7]
    assert best_of(trials).number == 9  # ahead by three losses, though its AP is the least
    assert best_of([]) is None
    assert rank([]) == []
