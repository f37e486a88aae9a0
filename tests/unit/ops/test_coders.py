"""Decoding worked by hand."""

import math

import pytest
import torch

from pyrafuse.core.predictions import AnchorGrid, GuidedPredictions
from pyrafuse.ops.coders import decode_guided, decode_rows, guided_shapes


def predictions(deltas, guides, *, reach: float = 0.0) -> GuidedPredictions:
    """Two anchors: 10 x 20 in cell (1, 2) of stride 8, and 64 x 64 in cell (0, 0) of stride 16."""
    grid = AnchorGrid(
        cells=torch.tensor([[0.0, 0.0], [1.0, 2.0]]),
        shapes=torch.tensor([[64.0, 64.0], [10.0, 20.0]]),
        strides=torch.tensor([16.0, 8.0]),
        levels=torch.tensor([1, 0]),
        starts=torch.tensor([[1], [0]]),
        sizes=torch.tensor([[2, 3], [1, 1]]),
        reach=reach,
    )
    deltas, guides = torch.tensor([deltas]), torch.tensor([guides])
    return GuidedPredictions(deltas, torch.zeros(1, 2), torch.zeros(1, 2, 1), guides, grid)


def test_zeros_are_the_anchor_in_the_middle_of_its_cell():
    found = predictions([[0.0] * 4] * 2, [[0.0] * 2] * 2)
    assert decode_guided(found).tolist() == [[[-24, -24, 40, 40], [7, 10, 17, 30]]]


def test_sizes_multiply():
    found = predictions([[0, 0, math.log(2), 0.0]] * 2, [[math.log(0.5), math.log(3)]] * 2)
    torch.testing.assert_close(guided_shapes(found), torch.tensor([[[32.0, 192.0], [5.0, 60.0]]]))
    torch.testing.assert_close(decode_guided(found)[0, 1], torch.tensor([7.0, -10.0, 17.0, 50.0]))


@pytest.mark.parametrize(("reach", "low", "high"), [(0.0, 8, 16), (1.0, 0, 24)])
def test_centers_stay_within_reach(reach, low, high):
    for logit, x in ((-50.0, low), (50.0, high), (0.0, 12)):
        found = predictions([[logit, 0, 0, 0.0]] * 2, [[0.0] * 2] * 2, reach=reach)
        box = decode_guided(found)[0, 1]
        assert float(box[0] + box[2]) / 2 == pytest.approx(x)


def test_wild_sizes_stay_finite():
    found = predictions([[0, 0, 1e4, 1e4]] * 2, [[1e4, 1e4]] * 2)
    assert decode_guided(found).isfinite().all()


def test_rows_alone():
    found = predictions([[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 0.7, -0.8]], [[0.2, -0.1], [0.0, 0.3]], reach=0.5)
    assert torch.equal(decode_rows(found, torch.tensor([[1, 0, 1]])), decode_guided(found)[:, [1, 0, 1]])


def test_extent_is_where_the_last_cell_of_the_finest_level_ends():
    assert predictions([[0.0] * 4] * 2, [[0.0] * 2] * 2).grid.extent.tolist() == [16, 24]
