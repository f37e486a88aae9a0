"""Latency is measured at the sizes that the data give, each as often as it comes."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import ImageRecord
from pyrafuse.experiments import costs
from pyrafuse.experiments.costs import Cost, measure_costs, spread_sizes

NOTHING = np.zeros(0, np.float32)
KEEP_RATIO = Preprocessing(size=(96, 160), fit="keep_ratio", pad_multiple=32)


def images(*sizes: tuple[int, int]) -> list[ImageRecord]:
    """Records of images of height and width."""
    empty = (NOTHING.reshape(0, 4), NOTHING.astype(int), NOTHING.astype(bool), NOTHING)
    return [ImageRecord(Path(f"{i}.jpg"), i, width, height, *empty) for i, (height, width) in enumerate(sizes)]


# by hand: (300, 300) -> 96 x 96; (300, 400) -> 96 x 128; (400, 300) -> 128 x 96; (300, 800) -> 60 x 160 -> 64 x 160
DATA = images(*[(300, 300)] * 2, *[(300, 400)] * 5, *[(400, 300)] * 2, (300, 800))


def test_sizes_come_as_often_as_in_the_data():
    found = spread_sizes(DATA, KEEP_RATIO, 10)
    assert Counter(found) == {(96, 96): 2, (64, 160): 1, (96, 128): 5, (128, 96): 2}
    assert [height * width for height, width in found] == sorted(height * width for height, width in found)
    assert Counter(spread_sizes(DATA, KEEP_RATIO, 30)) == {(96, 96): 6, (64, 160): 3, (96, 128): 15, (128, 96): 6}
    assert spread_sizes(DATA, KEEP_RATIO, 1) == [(96, 128)]


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_one_size_where_all_images_are_brought_to_it(fit):
    assert {*spread_sizes(DATA, Preprocessing(size=(64, 96), fit=fit), 7)} == {(64, 96)}


class FakeDetector(torch.nn.Module):
    """Notes the sizes that it decodes; a convolution of 3 * 5 weights and no bias."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.card = type("Card", (), {"preprocessing": preprocessing})
        self.conv = torch.nn.Conv2d(3, 5, 1, bias=False)
        self.decoded: list[tuple[int, ...]] = []

    def forward(self, x):
        return self.conv(x)

    def decode(self, x):
        self.decoded.append(tuple(x.shape))


def test_every_size_is_timed_and_the_median_one_is_counted(monkeypatch):
    several, one = FakeDetector(KEEP_RATIO), FakeDetector(Preprocessing(size=(64, 64)))
    monkeypatch.setattr(costs, "measure_latencies", lambda work, rounds, device: {
        name: [work[name]() for _ in range(rounds)] and 2.5 for name in work
    })  # fmt: skip
    found = measure_costs({"several": several, "one": one}, DATA, device=torch.device("cpu"), rounds=10)
    gflops = 2 * 15 * 96 * 128 / 1e9
    assert found["several"] == Cost(15, pytest.approx(gflops), 2.5, 96, 128, 4)
    assert found["one"] == Cost(15, pytest.approx(2 * 15 * 64 * 64 / 1e9), 2.5, 64, 64, 1)
    assert Counter(several.decoded) == {
        (1, 3, 96, 96): 2, (1, 3, 64, 160): 1, (1, 3, 96, 128): 5, (1, 3, 128, 96): 2,
    }  # fmt: skip
    assert {*one.decoded} == {(1, 3, 64, 64)}


def test_sizes_in_words():
    assert Cost(1, 1.0, 1.0, 320, 320).size_text == "320 px"
    assert Cost(1, 1.0, 1.0, 320, 416).size_text == "320 x 416 px"
    assert Cost(1, 1.0, 1.0, 800, 1088, 12).size_text == "800 x 1088 px (median of 12 sizes)"
