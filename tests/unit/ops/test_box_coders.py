"""Encoding is decoding turned around; bounds hold."""

import math

import pytest
import torch

from pyrafuse.ops.coders import DeltaCoder, DistanceCoder

ANCHOR = torch.tensor([[10.0, 10.0, 30.0, 50.0]])


@pytest.mark.parametrize("coder", [DeltaCoder(), DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)), DistanceCoder()])
def test_there_and_back(coder):
    boxes = torch.tensor([[12.0, 0.0, 40.0, 60.0], [10.0, 10.0, 30.0, 50.0]])
    torch.testing.assert_close(coder.decode(ANCHOR, coder.encode(ANCHOR, boxes)), boxes)


def test_by_hand():
    encoded = DeltaCoder(stds=(0.5, 0.5, 1, 2)).encode(ANCHOR, torch.tensor([[15.0, 30.0, 35.0, 110.0]]))
    torch.testing.assert_close(encoded, torch.tensor([[0.5, 2, 0, math.log(2) / 2]]))
    assert DistanceCoder().encode(ANCHOR, torch.tensor([[15.0, 32.0, 35.0, 40.0]])).tolist() == [[5, -2, 15, 10]]
    assert DistanceCoder(largest=8).encode(ANCHOR, torch.tensor([[15.0, 32.0, 35.0, 40.0]])).tolist() == [
        pytest.approx([5, 0, 7.9, 7.9])
    ]


def test_bounds():
    far = torch.tensor([[9.0, -9.0, 99.0, -99.0]])
    sides = 20 * 1000 / 16, 40 * 16 / 1000
    torch.testing.assert_close(
        DeltaCoder().decode(ANCHOR, far),
        torch.tensor([[200 - sides[0] / 2, -330 - sides[1] / 2, 200 + sides[0] / 2, -330 + sides[1] / 2]]),
    )
    box = DeltaCoder(center_clamp=32).decode(ANCHOR, far)[0]
    assert (box[0] + box[2]).item() == pytest.approx(2 * 52)
    assert (box[3] - box[1]).item() == pytest.approx(0, abs=1e-6)


def test_a_box_without_area_has_finite_deltas():
    assert DeltaCoder().encode(ANCHOR, torch.zeros(1, 4)).isfinite().all()
