"""The page of a search: curves worked out by hand, what a running search shows, names that give no order."""

import random
from dataclasses import replace

import pytest

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph_text import read_graph
from pyrafuse.search.choices import Space
from pyrafuse.search.journal import BEGUN, FAILED, FINISHED, OVER_BUDGET, Trial
from pyrafuse.search.learners import Rung
from pyrafuse.search.report import MAX_ROWS, PageWriter, best_so_far, write_best
from pyrafuse.search.running import Limits, Plan
from pyrafuse.search.space import sample
from pyrafuse.search.strategies.registry import STRATEGIES, restore

INPUTS = PyramidSpec((16, 24, 32), (8, 16, 32))
SPACE = Space(sizes=(64,), channels=(16,), max_merges=5)
PLAN = Plan(SPACE, INPUTS, STRATEGIES.create("evolution"), "evolution", Limits())


def trial(number, source, *rungs, state=FINISHED, reason=""):
    answers = sample(SPACE, INPUTS, random.Random(number)).answers
    made = tuple(Rung(10, loss, ap, 60.0) for loss, ap in rungs)
    cost = {"latency_ms": 10.0 + number, "parameters": 1000.0}
    return Trial(number, source, answers, str(number), 64, cost, state, made, reason)


TRIALS = (
    trial(0, "fpn", (3.0, None), (2.0, 0.10)),
    trial(1, "random", (3.1, None)),
    trial(2, "random", (2.9, None), (2.1, 0.05)),
    trial(3, "evolution", (2.6, None), (1.9, 0.20)),
    trial(4, "random", (2.7, None), (1.8, 0.15)),
    trial(5, "evolution", state=FAILED, reason="<script>alert(1)</script>"),
    trial(6, "evolution", state=OVER_BUDGET, reason="16 ms, and 15 ms are allowed"),
    trial(7, "evolution", state=BEGUN),
)


def test_random_draws_spend_their_own_time():
    curves = best_so_far(TRIALS)
    # a minute a rung: 2, 1, 2, 2 and 2 minutes
    assert curves["all trials"] == [(2.0, 0.10), (7.0, 0.20), (9.0, 0.20)]
    assert curves["random draws"] == [(3.0, 0.05), (5.0, 0.15), (5.0, 0.15)]
    assert best_so_far(TRIALS[1:2]) == {"all trials": [], "random draws": []}


def test_the_best_necks_are_files_that_are_read_back(tmp_path):
    paths = write_best(tmp_path, TRIALS, PLAN)
    assert [path.name for path in paths] == ["neck-1.yaml", "neck-2.yaml", "neck-3.yaml"]
    for path, number in zip(paths, (3, 4, 0), strict=True):
        assert read_graph(str(path)) == restore(SPACE, INPUTS, TRIALS[number]).graph
    assert paths[0].read_text().startswith("# trial 3 (evolution): AP 0.200, loss 1.900, 13 ms, 1,000 parameters\n")
    assert write_best(tmp_path, (), PLAN) == []


@pytest.mark.parametrize("is_running", [True, False])
def test_the_page(tmp_path, is_running):
    writer = PageWriter(tmp_path, PLAN, command="pyrafuse search d", train="pyrafuse train d")
    writer.write(TRIALS, is_running=is_running)
    page = (tmp_path / "search.html").read_text()
    assert ('<meta http-equiv="refresh" content="15">' in page) == is_running
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "AP 0.200" in page
    assert page.count("<tr>") == len(TRIALS) + 1
    assert page.count("<img") == (3 if is_running else 5)
    assert (f"pyrafuse train d --size 64 --model.neck {tmp_path}/neck-1.yaml" in page) != is_running
    assert [path.name for path in tmp_path.iterdir()] == ["search.html"]


def test_a_page_before_anything_is_found_and_one_of_many_trials(tmp_path):
    writer = PageWriter(tmp_path, PLAN, command="pyrafuse search d", train="pyrafuse train d")
    writer.write_if_old(())
    assert "Trials" in (tmp_path / "search.html").read_text()
    many = [replace(TRIALS[1], number=number) for number in range(MAX_ROWS + 7)]
    writer.write_if_old(many)  # the last page is new
    assert "7 trials not shown" not in (tmp_path / "search.html").read_text()
    writer.write(many, is_running=True)
    assert "7 trials not shown; journal.jsonl has all." in (tmp_path / "search.html").read_text()
