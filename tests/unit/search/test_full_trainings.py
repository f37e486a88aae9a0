"""What full trainings say of a search: what is trained, which difference is more than chance, how well it ranks."""

import json
import math
import random

import numpy as np
import pytest

from pyrafuse.comparison.report import DataResult, VariantResult
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.experiments.budget import Budget
from pyrafuse.experiments.costs import Cost
from pyrafuse.experiments.rank_correlation import correlate, spearman
from pyrafuse.experiments.statistics import compare_by_seed
from pyrafuse.search.choices import Space
from pyrafuse.search.confirming import Confirmation, choose, judge
from pyrafuse.search.evidence import Evidence
from pyrafuse.search.journal import FINISHED, Trial
from pyrafuse.search.learners import Rung
from pyrafuse.search.points import POINTS
from pyrafuse.search.recognizing import recognize
from pyrafuse.search.running import Limits, Plan
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.registry import STRATEGIES
from pyrafuse.search.training_in_full import FullResults
from pyrafuse.search.trust import Judged, find_trust
from pyrafuse.visualization.comparison import find_front
from pyrafuse.visualization.report import Report

INPUTS = PyramidSpec((16, 24, 32), (8, 16, 32))
SPACE = Space(sizes=(64,), channels=(16, 24), max_merges=12)
PLAN = Plan(SPACE, INPUTS, STRATEGIES.create("evolution"), "evolution", Limits())


def make_trial(number, source, *precisions, answers=None):
    answers = sample(SPACE, INPUTS, random.Random(number)).answers if answers is None else answers
    rungs = tuple(Rung(step, 1 - ap, ap if step == 2 else None, 1.0) for step, ap in enumerate(precisions, 1))
    return Trial(number, source, answers, f"{source}{number}", 64, {"gflops": 1.0}, FINISHED, rungs)


def by_hand(number, name, width, *precisions):
    answers = recognize(SPACE, INPUTS, POINTS[name](INPUTS, width, None)).answers
    return make_trial(number, f"{name}-{width}", *precisions, answers=answers)


TRIALS = (
    by_hand(0, "fpn", 16, 0.1),
    by_hand(1, "fpn", 24, 0.2, 0.3),
    by_hand(2, "pafpn", 16, 0.15),
    by_hand(3, "pafpn", 24, 0.14),
    make_trial(4, "random", 0.1, 0.2),
    make_trial(5, "evolution", 0.2, 0.25),
    make_trial(6, "evolution", 0.05),
    make_trial(7, "evolution", 0.2, 0.1),
    make_trial(8, "evolution", 0.2, 0.05),
)


def test_the_best_graphs_each_neck_by_hand_at_its_best_and_the_best_draw_are_chosen():
    drawn = (make_trial(0, "random", 0.1), make_trial(1, "random", 0.2, 0.2), make_trial(2, "random", 0.2, 0.4))
    chosen = choose(PLAN, TRIALS, drawn)
    assert chosen.found == ("trial-5", "trial-7", "trial-4")
    assert tuple(chosen.candidates) == (*chosen.found, "fpn-24", "pafpn-16", "random-2")
    assert chosen.candidates["fpn-24"].graph.channels == 24
    assert chosen.candidates["trial-5"].answers == TRIALS[5].answers
    assert tuple(choose(PLAN, TRIALS, TRIALS[5:6]).candidates) == (*chosen.found, "fpn-24", "pafpn-16")


def results(precisions, failures=()):
    cost = Cost(1000, 1.0, 2.0, 64, 64)
    variants = tuple(
        VariantResult(
            name,
            {
                seed: {"ap": ap, "ap50": ap, "ap_small": ap, "ap_medium": ap, "ap_large": math.nan}
                for seed, ap in enumerate(values)
            },
            cost,
        )
        for name, values in precisions.items()
    )
    return FullResults(
        DataResult("d", "d", Budget(3, dict.fromkeys(precisions, 4), {}), variants, ()), (0, 1, 2), failures
    )


def test_a_tie_is_told_as_a_tie():
    chosen = choose(PLAN, TRIALS, ())
    found = {"trial-5": (0.30, 0.31, 0.32), "trial-4": (0.1, 0.1, 0.1), "trial-7": ()}
    confirmation = Confirmation(chosen, results(found | {"fpn-24": (0.29, 0.32, 0.31), "pafpn-16": (0.20, 0.21, 0.22)}))
    assert confirmation.best == "trial-5"
    tie, better = confirmation.sentences()
    assert tie.startswith("trial-5 and fpn-24 are tied: AP +0.0033 (95 % interval -0.0254 to +0.0320, 3 seeds)")
    assert better.startswith("trial-5 is better than pafpn-16: AP +0.1000")
    worse = judge(compare_by_seed("a", "b", {"a": {0: 0.1, 1: 0.11}, "b": {0: 0.5, 1: 0.51}}))
    assert worse.startswith("a is worse than b: AP -0.4000")
    assert "fewer than two seeds" in judge(compare_by_seed("a", "b", {"a": {0: 0.1}, "b": {1: 0.5}}))
    nothing = Confirmation(chosen, results(dict.fromkeys(found, ()) | {"fpn-24": (0.1, 0.2), "pafpn-16": (0.1, 0.2)}))
    assert nothing.sentences() == ["No graph that the search found has an AP in full training."]


def test_the_front_is_what_nothing_beats_in_both():
    costs = [3.0, 1.0, 2.0, 2.0, 4.0, math.nan]
    precisions = [0.5, 0.2, 0.3, 0.4, 0.45, 0.9]
    assert find_front(costs, precisions) == [(1.0, 0.2), (2.0, 0.4), (3.0, 0.5)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),  # ranks 0, 1.5, 1.5, 3
        ([1, 1, 1], [1, 2, 3], math.nan),
    ],
)
def test_rank_correlations_by_hand(first, second, expected):
    assert spearman(first, second) == pytest.approx(expected, nan_ok=True)


def test_an_interval_holds_the_value_and_narrows_with_more_graphs():
    generator = np.random.default_rng(0)
    x = generator.normal(size=200)
    y = x + generator.normal(size=200)
    few, many = correlate("x", x[:20], y[:20]), correlate("x", x, y)
    for one in (few, many):
        assert one.low < one.value < one.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert correlate("x", [*x[:20], math.nan], [*y[:20], 1.0]) == few
    assert math.isnan(correlate("x", [1.0], [2.0]).value)
    with pytest.raises(ValueError):
        spearman([1, 2], [1, 2, 3])


def graphs_of(short):
    return [
        Judged(f"random-{place}", 100.0 - place, float(place % 3), (2 - ap, 1 - ap), ap, {0: place / 10, 1: place / 9})
        for place, ap in enumerate(short)
    ]


def test_a_ranking_below_a_half_is_not_trusted():
    good = find_trust(graphs_of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), (0, 1))
    assert [one.value for one in (*good.rungs, good.stability)] == pytest.approx([1.0] * 4)
    assert good.sizes[0].value == pytest.approx(-1.0)
    assert good.is_trusted
    assert not any("cannot be trusted" in line for line in good.sentences())
    bad = find_trust(graphs_of([0.6, 0.1, 0.5, 0.2, 0.4, 0.3]), (0, 1))
    assert "The ranking cannot be trusted on these data: below 0.5 are loss of rung 1" in bad.sentences()[-1]
    plain = json.loads(bad.to_json())
    assert plain["trusted"] is False
    assert plain["graphs"][1]["full"] == {"0": 0.1, "1": pytest.approx(1 / 9)}


def test_the_sections_of_the_page():
    chosen = choose(PLAN, TRIALS, ())
    values = dict.fromkeys(chosen.candidates, (0.3, 0.31, 0.32))
    report = Report("r")
    trust = find_trust(graphs_of([0.6, 0.1, 0.5, 0.2, 0.4, 0.3]), (0, 1))
    Evidence(Confirmation(chosen, results(values, ("fpn failed: <b>",))), trust).add_to(report, INPUTS)
    page = report.to_html()
    assert "0.310 ± 0.010" in page
    assert "fpn failed: &lt;b&gt;" in page
    assert page.count("<img") == 2 + len(values)
    assert "The ranking cannot be trusted on these data" in page
    empty = Report("r")
    Evidence().add_to(empty, INPUTS)
    assert "<img" not in empty.to_html()
