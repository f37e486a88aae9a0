"""Anchors worked by hand."""

import pytest
import torch

from pyrafuse.ops.anchors import anchor_shapes, lay_anchors, lay_points, octave_scales, ssd_shapes


def test_shapes_run_by_ratio_then_scale():
    shapes = anchor_shapes(8, scales=(1, 2), ratios=(0.25, 1, 4))
    assert shapes.tolist() == [[16, 4], [32, 8], [8, 8], [16, 16], [4, 16], [8, 32]]


def test_octaves():
    assert octave_scales(4, 2) == (4, 4 * 2**0.5)


def test_anchors_stand_on_the_corner_of_their_cell():
    boxes = lay_anchors(torch.tensor([[4.0, 2.0], [8.0, 8.0]]), (1, 2), 16)
    assert boxes.tolist() == [[-2, -1, 2, 1], [-4, -4, 4, 4], [14, -1, 18, 1], [12, -4, 20, 4]]
    assert lay_anchors(torch.tensor([[4.0, 2.0]]), (2, 1), 16, offset=0.5).tolist() == [[6, 7, 10, 9], [6, 23, 10, 25]]


def test_points_run_by_y_then_x():
    assert lay_points((2, 2), 10).tolist() == [[5, 5], [15, 5], [5, 15], [15, 15]]


def test_ssd():
    shapes = ssd_shapes(300, ratios=((4,), (4,), (4,)), coverage=(0.2, 0.8))
    assert shapes[0].tolist() == [[30, 30], pytest.approx([1800**0.5] * 2), [60, 15], [15, 60]]
    assert shapes[2][0].tolist() == [240, 240]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: anchor_shapes(8, scales=(), ratios=(1,)), "positive scales"),
        (lambda: anchor_shapes(8, scales=(1,), ratios=(0,)), "positive scales"),
        (lambda: ssd_shapes(300, ratios=((2,), (2,))), "three levels"),
        (lambda: ssd_shapes(320, ratios=((2,),) * 4), "320 px"),
    ],
)
def test_complaints(call, message):
    with pytest.raises(ValueError, match=message):
        call()
