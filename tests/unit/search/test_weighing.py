import random

import pytest
import torch

from pyrafuse.base.terminal import Terminal
from pyrafuse.inference.measuring import count_gflops, count_parameters
from pyrafuse.models.building import build
from pyrafuse.models.describing import change, describe
from pyrafuse.search.by_hand import find_by_hand, find_limits
from pyrafuse.search.choices import Space
from pyrafuse.search.latency import LatencyTable
from pyrafuse.search.running import Limits
from pyrafuse.search.space import sample
from pyrafuse.search.weighing import Scale

SPACE = Space(sizes=(64,), channels=(32,))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def detector():
    return build(describe("atss", backbone="resnet18", num_classes=2, head={"num_convs": 1, "channels": 32})).eval()


@pytest.fixture(scope="module")
def candidate(detector):
    return sample(SPACE, detector.backbone.features, random.Random(1))


def test_a_candidate_costs_what_its_whole_detector_does(detector, candidate):
    spec = detector.card.spec
    scale = Scale(spec, detector.backbone, CPU, rounds=1)
    cost = scale(candidate)
    whole = build(change(spec, neck=candidate.graph)).eval()
    gflops = count_gflops(whole, torch.zeros(1, 3, 64, 64))
    assert (cost["parameters"], cost["gflops"]) == (count_parameters(whole), gflops)
    assert scale.count_gflops(candidate) == gflops
    assert cost["latency_ms"] > 0


@pytest.mark.parametrize(("most_ms", "is_measured"), [(1e6, True), (1e-6, False)])
def test_a_neck_far_above_the_budget_is_not_measured_whole(detector, candidate, tmp_path, most_ms, is_measured):
    table = LatencyTable(CPU, folder=tmp_path)
    cost = Scale(detector.card.spec, detector.backbone, CPU, Limits(latency_ms=most_ms), table, rounds=1)(candidate)
    assert (cost["parameters"] > count_parameters(detector.backbone)) == is_measured
    assert bool(Limits(latency_ms=most_ms).find_excess(cost)) != is_measured


def test_what_has_too_many_operations_or_parameters_is_not_timed(detector, candidate):
    for limits in (Limits(gflops=1e-6), Limits(parameters=10, latency_ms=1e6)):
        cost = Scale(detector.card.spec, detector.backbone, CPU, limits)(candidate)
        assert set(cost) == {"gflops", "parameters"}
        assert limits.find_excess(cost)


def test_without_a_limit_it_follows_from_the_necks_by_hand(detector, capsys):
    scale = Scale(detector.card.spec, detector.backbone, CPU)
    by_hand = find_by_hand(SPACE, detector.backbone.features, Terminal(quiet=True))
    limits = find_limits(Limits(), by_hand, scale, Terminal())
    assert limits == Limits(gflops=max(scale.count_gflops(one) for one in by_hand.values()))
    assert "no limit was given" in capsys.readouterr().err
    given = Limits(parameters=1e6)
    assert find_limits(given, by_hand, scale, Terminal()) is given
    assert find_limits(Limits(), {}, scale, Terminal()) == Limits()
