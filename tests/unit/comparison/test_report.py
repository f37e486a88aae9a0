"""What is told of finished runs: tables, JSON and the picture, from figures chosen by hand."""

import json
import math
from dataclasses import replace

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.comparison.planning import Comparison, Variant, plan_runs
from pyrafuse.comparison.report import gather, piped
from pyrafuse.experiments.budget import Budget
from pyrafuse.experiments.costs import Cost
from pyrafuse.experiments.running import Failure
from pyrafuse.experiments.statistics import LEAST_AP
from pyrafuse.training.settings import Recipe
from pyrafuse.visualization.comparison import plot_comparison

BASE = Recipe()
VARIANTS = (Variant("asff", BASE), Variant("sum", replace(BASE, optimizer=replace(BASE.optimizer, lr=0.5))))
BOLD = "**"
AP = {"asff": (0.52, 0.63, 0.71), "sum": (0.50, 0.60, 0.70)}


@pytest.fixture
def report(tmp_path):
    return report_of(AP, tmp_path)


def report_of(precisions, tmp_path):
    """Two variants and three seeds; one run of a third seed failed."""
    comparison = Comparison(VARIANTS, {"cells": "data/cells"}, (0, 1, 2))
    runs = plan_runs(comparison, tmp_path, {"cells": 12})
    for run in runs:
        seed = run.recipe.run.seed
        if (run.variant, seed) != ("sum", 2):
            run.folder.mkdir(parents=True)
            ap = precisions[run.variant][seed]
            figures = {"ap": ap, "ap50": ap + 0.2, "ap_small": None, "ap_medium": 0.25, "ap_large": 0.5}
            (run.folder / "results.json").write_text(json.dumps(figures))
    return gather(
        comparison,
        runs,
        budgets={"cells": Budget(12, {"asff": 73, "sum": 73}, {})},
        costs={("cells", "asff"): Cost(3_210_000, 4.5678, 12.34, 320, 320)},
        failures=[Failure(runs[-1], "the loss became nan; see train.log")],
        machine="a machine",
    )


def test_table(report):
    lines = report.markdown().splitlines()
    assert "data/cells: 12 epochs of 73 batches, seeds 0, 1, 2, 320 px" in lines
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines if "|" in line}
    assert rows["variant"] == [
        "AP", "AP50", "AP small", "AP medium", "AP large", "M parameters", "GFLOPs", "latency, ms", "runs",
    ]  # fmt: skip
    assert rows["asff"] == [
        "0.620 ± 0.095", "0.820 ± 0.095", "-", "0.250 ± 0.000", "0.500 ± 0.000", "3.21", "4.57", "12.3", "3/3",
    ]  # fmt: skip
    assert rows["sum"][:2] == ["0.550 ± 0.071", "0.750 ± 0.071"]
    assert rows["sum"][5:] == ["-", "-", "-", "2/3"]
    # the two seeds that both have: 0.02 and 0.03, so 0.025 with standard error 0.00707 / 1.414
    assert rows["asff - sum"] == ["+0.0250", "0.0050", "2", "within the spread"]
    assert "- sum on cells, seed 2: the loss became nan; see train.log" in lines
    assert "A difference lies within the spread when zero is in its 95 % confidence interval" in lines[-1]


def test_where_nothing_was_learnt_the_table_says_so(tmp_path):
    report = report_of({"asff": (0.0, 0.004, 0.0099), "sum": (0.001, 0.002)}, tmp_path)
    text = report.markdown()
    assert "none: neither learnt anything" in text.split("## ")[1].split(BOLD)[0]
    assert "Nothing was learnt: the AP of every run is below 0.01.** This ranks no variant." in text
    assert "Give more epochs (`--epochs`, 12 here), or pretrained weights to start from (`--weights FILE`)" in text
    assert json.loads(report.to_json())["data"][0]["learnt_nothing"] == ["asff", "sum"]
    by_latency, _ = plot_comparison(report.compared(), least_ap=LEAST_AP).axes
    assert by_latency.get_ylim() == (0, 0.02)
    assert by_latency.texts[0].get_text() == "below AP 0.01: nothing was learnt"


def test_variants_that_learnt_nothing_are_named(tmp_path):
    report = report_of({"asff": (0.52, 0.63, 0.71), "sum": (0.001, 0.002)}, tmp_path)
    text = report.markdown()
    assert "within the spread; sum learnt nothing" in text  # of two seeds, which tell nothing apart
    assert "**Learnt nothing (AP below 0.01 in every run): sum.**" in text
    assert json.loads(report.to_json())["data"][0]["learnt_nothing"] == ["sum"]
    assert not plot_comparison(report.compared(), least_ap=LEAST_AP).axes[0].texts


def test_nothing_is_said_where_all_learnt(report):
    assert BOLD not in report.markdown()
    assert json.loads(report.to_json())["data"][0]["learnt_nothing"] == []


def test_json(report):
    plain = json.loads(report.to_json())
    (data,) = plain["data"]
    asff, summed = data["variants"]
    assert asff["figures"]["ap"]["mean"] == pytest.approx(0.62)
    assert asff["figures"]["ap"]["by_seed"] == {"0": 0.52, "1": 0.63, "2": 0.71}
    assert asff["figures"]["ap_small"] == {
        "mean": None, "deviation": None, "count": 0, "by_seed": {"0": None, "1": None, "2": None},
    }  # fmt: skip
    assert asff["cost"] == {"parameters": 3_210_000, "gflops": 4.5678, "latency_ms": 12.34} | {
        "height_px": 320, "width_px": 320, "num_sizes": 1,
    }  # fmt: skip
    assert summed["cost"] is None
    (difference,) = data["differences"]
    assert difference["half_width_95"] == pytest.approx(12.706 * 0.005)
    assert difference["is_within_spread"] is True
    assert plain["failures"] == [
        {"data": "cells", "variant": "sum", "seed": 2, "reason": "the loss became nan; see train.log"}
    ]


def test_picture(report):
    by_latency, by_size = plot_comparison(report.compared(), least_ap=LEAST_AP).axes
    (bars,) = by_latency.containers
    assert bars.get_label() == "asff"
    assert bars[0].get_xydata().tolist() == [[12.34, pytest.approx(0.62)]]
    assert by_size.containers[0][0].get_xydata()[0, 0] == pytest.approx(3.21)
    top = max(segment[1] for segment in bars[2][0].get_segments()[0])
    assert top == pytest.approx(0.62 + math.sqrt((0.1**2 + 0.01**2 + 0.09**2) / 2))


def test_damaged_results_are_named(tmp_path):
    comparison = Comparison(VARIANTS[:1], {"cells": "data/cells"}, (0,))
    runs = plan_runs(comparison, tmp_path, {"cells": 1})
    runs[0].folder.mkdir(parents=True)
    (runs[0].folder / "results.json").write_text('{"ap": 0.')
    with pytest.raises(PyrafuseError, match=r"results\.json is damaged: remove it, and the run goes on"):
        gather(comparison, runs, budgets={}, costs={}, failures=(), machine="")


def test_pipes_are_aligned():
    assert piped(("a", "count"), [("x|y", "1")]).splitlines() == [
        "| a    | count |",
        "| ---- | ----: |",
        "| x\\|y |     1 |",
    ]
