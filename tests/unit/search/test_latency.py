import json
from collections import Counter

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_peak_memory_mb
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.search import latency
from pyrafuse.search.latency import LatencyTable, list_operators, weigh_graph
from pyrafuse.search.points import POINTS

INPUTS = PyramidSpec(channels=(8, 16, 24), strides=(8, 16, 32))
CPU = torch.device("cpu")


def network() -> nn.Module:
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.ReLU(), conv, nn.Flatten(), nn.Linear(4 * 6 * 6, 2))


@pytest.fixture
def measured(monkeypatch):
    """Operators that were measured, each as one millisecond more than the one before."""
    names: list[str] = []

    def measure(work, **_):
        for call in work.values():
            call()
        names.extend(work)
        return {name: float(names.index(name) + 1) for name in work}

    monkeypatch.setattr(latency, "measure_latencies", measure)
    return names


def test_operators_of_a_network_are_counted_without_its_views():
    operators = list_operators(network(), torch.zeros(1, 4, 6, 6))
    counts = Counter({operator.name.split("(")[0]: number for operator, number in operators.items()})
    assert counts == {"aten.convolution.default": 2, "aten.relu.default": 1, "aten.addmm.default": 1}


def test_the_shapes_are_those_without_numbers():
    with torch.device("meta"):
        without = list_operators(network(), torch.zeros(1, 4, 6, 6))
    assert without == list_operators(network(), torch.zeros(1, 4, 6, 6))


def test_a_latency_is_the_sum_of_operators_each_measured_once(tmp_path, measured):
    operators = list_operators(network(), torch.zeros(1, 4, 6, 6))
    table = LatencyTable(CPU, folder=tmp_path)
    first = table.predict_ms(operators)
    assert first == sum(number * (measured.index(one.name) + 1) for one, number in operators.items())
    assert len(measured) == 3
    assert table.predict_ms(operators) == LatencyTable(CPU, folder=tmp_path).predict_ms(operators) == first
    assert len(measured) == 3


@pytest.mark.parametrize("text", ["{", '{"ms": {"a": "fast"}}', '{"ms": {"a": NaN}}', '{"ms": 3}', "[" * 100_000])
def test_a_damaged_table_is_told_and_measured_anew(tmp_path, measured, text):
    path = LatencyTable(CPU, folder=tmp_path).path
    path.write_text(text)
    told: list[str] = []
    table = LatencyTable(CPU, folder=tmp_path, tell=told.append)
    assert f"{path} is damaged" in told[0]
    table.predict_ms(list_operators(nn.ReLU(), torch.zeros(2)))
    assert list(json.loads(path.read_text())["ms"]) == measured == ["aten.relu.default(float32[2])"]


@pytest.mark.parametrize("name", ["fpn", "asff", "bifpn"])
def test_a_graph_is_weighed_as_its_neck_is(tmp_path, measured, name):
    graph = POINTS[name](INPUTS, 16, 3)
    cost = weigh_graph(graph, INPUTS, 100, LatencyTable(CPU, folder=tmp_path))
    neck = GraphNeck(INPUTS, graph).eval()
    maps = tuple(
        torch.zeros(1, channels, side, side) for channels, side in zip(INPUTS.channels, (13, 7, 4), strict=True)
    )
    assert (cost.parameters, cost.gflops) == (count_parameters(neck), count_gflops(neck, maps))
    assert cost.peak_memory_mb == pytest.approx(measure_peak_memory_mb(neck, maps), rel=0.02)
    assert cost.latency_ms >= len(measured)
