"""Parameters, operations and medians, worked by hand."""

import pytest
import torch
from torch import nn

from pyrafuse.inference.measuring import count_gflops, count_parameters, measure_latencies, measure_peak_memory_mb


def test_parameters():
    block = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))
    block[0].weight.requires_grad_(False)
    assert count_parameters(block) == 3 * 8 * 9 + 2 * 8


def test_operations_of_a_convolution_and_a_product():
    block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 6, 5)).train()
    expected = 2 * (8 * 10 * 6 * 3 * 9) + 2 * (8 * 10 * 6 * 5)
    assert count_gflops(block, torch.zeros(1, 3, 10, 6)) == pytest.approx(expected / 1e9)
    assert block.training


def test_medians_of_works_that_take_turns():
    now, calls = [0.0], []

    def work(name: str, seconds: list[float]):
        def do() -> None:
            calls.append(name)
            now[0] += seconds[calls.count(name) - 1]

        return do

    found = measure_latencies(
        {"a": work("a", [9, 1, 2, 60]), "b": work("b", [9, 5, 4, 3])}, rounds=3, warmup=1, clock=lambda: now[0]
    )
    assert found == {"a": pytest.approx(2000), "b": pytest.approx(4000)}  # of 1, 2, 60 and of 5, 4, 3 seconds
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))


class Steps(nn.Module):
    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x):
        kept = [x]
        for _ in range(4):
            kept.append((kept[-1] + 1).relu_().view(-1))
            if not self.keep:
                kept = kept[-1:]
        return kept[-1]


@pytest.mark.parametrize(("keep", "tensors"), [(False, 2), (True, 4)])
def test_peak_memory_is_of_what_lives_at_a_time(keep, tensors):
    x = torch.zeros(10, 100)
    assert measure_peak_memory_mb(Steps(keep), x) == pytest.approx(tensors * x.nbytes / 1e6)
    assert measure_peak_memory_mb(nn.Conv2d(2, 5, 1), torch.zeros(1, 2, 8, 8)) == pytest.approx(5 * 64 * 4 / 1e6)


def test_no_rounds():
    with pytest.raises(ValueError, match="rounds must be 1 or more, got 0"):
        measure_latencies({}, rounds=0)
