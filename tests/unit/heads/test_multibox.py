"""Anchors, rows and complaints of SSD's and M2Det's heads."""

import math

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.multibox import MultiBoxHead, m2det_head, ssd_head
from pyrafuse.heads.registry import HEADS

TWO = PyramidSpec((3, 5), (8, 16))


def test_rows_run_finest_first_then_by_y_x_and_anchor():
    shapes = (torch.tensor([[4.0, 6.0]]), torch.tensor([[8.0, 2.0], [10.0, 10.0]]))
    head = MultiBoxHead(TWO, num_classes=2, shapes=shapes, steps=(8, 20))
    predictions = head((torch.zeros(1, 3, 1, 2), torch.zeros(1, 5, 2, 1)))
    assert predictions.grid.anchors.tolist() == [
        [2, 1, 6, 7],
        [10, 1, 14, 7],
        [6, 9, 14, 11],
        [5, 5, 15, 15],
        [6, 29, 14, 31],
        [5, 25, 15, 35],
    ]
    assert predictions.grid.counts == (2, 4)
    assert predictions.grid.levels.tolist() == [0, 0, 1, 1, 1, 1]
    assert predictions.grid.strides.tolist() == [8, 8, 16, 16, 16, 16]
    assert predictions.classes.shape == (1, 6, 3)


def test_a_row_belongs_to_its_cell_and_anchor():
    head = MultiBoxHead(TWO, num_classes=2, shapes=(torch.ones(2, 2), torch.ones(1, 2)), steps=(8, 16))
    with torch.no_grad():
        for conv in (*head.classes, *head.deltas):
            conv.weight.zero_()
        head.classes[0].weight[4, 0, 1, 1] = 1.0  # the second class of the second anchor
        head.deltas[0].weight[7, 0, 1, 1] = 1.0  # the last number of the second anchor
    pyramid = (torch.zeros(1, 3, 2, 3), torch.zeros(1, 5, 1, 1))
    pyramid[0][0, 0, 1, 2] = 5.0
    predictions = head(pyramid)
    assert predictions.classes.nonzero().tolist() == [[0, 11, 1]]
    assert predictions.deltas.nonzero().tolist() == [[0, 11, 3]]


def test_sizes_of_ones_own():
    head = ssd_head(TWO, num_classes=1, sizes=(10, 40, 90), ratios=((2,), (4,)))
    root = math.sqrt(2)
    expected = [[10, 10], [20, 20], [10 * root, 10 / root], [10 / root, 10 * root]]
    expected += [[40, 40], [60, 60], [80, 20], [20, 80]]
    torch.testing.assert_close(head.shapes, torch.tensor(expected))
    assert head.steps == (8, 16)


def test_ratios_by_default():
    spec = PyramidSpec((1,) * 5, (8, 16, 32, 64, 128))
    assert ssd_head(spec, num_classes=1, sizes=range(1, 7)).num_slots == (4, 6, 6, 4, 4)


def test_anchors_are_no_larger_than_the_input():
    head = m2det_head(TWO, num_classes=1, size=100, sizes=(0.5, 0.8, 1.25), ratios=(2,))
    root = math.sqrt(2)
    expected = [[50, 50], [math.sqrt(4000)] * 2, [50 * root, 50 / root], [50 / root, 50 * root]]
    expected += [[80, 80], [100, 100], [100, 80 / root], [80 / root, 100]]
    torch.testing.assert_close(head.shapes, torch.tensor(expected))


def test_sizes_of_ones_own_are_cut_if_asked_for():
    options = {"num_classes": 1, "size": 100, "sizes": (50, 80, 125), "ratios": ((2,), (2,)), "steps": (8, 20)}
    free, cut = ssd_head(TWO, **options), ssd_head(TWO, **options, clip=True)
    longest = [70.7107, 113.1371]
    assert [x.max().item() for x in free.shapes.split(free.num_slots)] == pytest.approx(longest)
    torch.testing.assert_close(cut.shapes, free.shapes.clamp(max=100))
    assert cut.shapes[6].tolist() == pytest.approx([100, 56.5685])


@pytest.mark.parametrize("name", ["ssd", "m2det"])
def test_other_numbers_of_levels_get_sizes_between_the_published_ends(name):
    size = {"ssd": 300, "m2det": 320}[name]
    spec = PyramidSpec((1,) * 4, (8, 16, 32, 64))
    head = HEADS.create(name, spec, num_classes=1)
    assert head.steps == spec.strides
    smallest = [of_level[0, 0].item() / size for of_level in head.shapes.split(head.num_slots)]
    assert smallest == pytest.approx([0.08, 0.15, 0.33, 0.69], abs=0.002)


@pytest.mark.parametrize(("name", "size"), [("ssd", 300), ("ssd", 320), ("m2det", 320)])
def test_published_steps_are_for_published_strides(name, size):
    spec = PyramidSpec((1,) * 6, (4, 8, 16, 32, 64, 128))
    assert HEADS.create(name, spec, num_classes=1, size=size).steps == spec.strides


def test_other_levels_of_ssdlite_have_its_ends():
    spec = PyramidSpec((1,) * 5, (16, 32, 64, 128, 256))
    head = HEADS.create("ssd", spec, num_classes=1, size=320)
    assert set(head.num_slots) == {6}
    assert [of_level[0, 0].item() for of_level in head.shapes.split(head.num_slots)] == pytest.approx(
        [64, 112, 160, 640 / 3, 800 / 3]
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssd", {"size": 320, "coverage": (0.2, 0.9)}, r"sizes of their own: leave out coverage=\(0.2, 0.9\)"),
        ("ssd", {"size": 416}, "published anchors for inputs of 300, 320, 512 px, not 416; give the anchors' sizes"),
        ("m2det", {"size": 300}, "published anchors for inputs of 320, 512, 704, 800 px, not 300"),
        ("ssd", {"steps": (8, 16, 32)}, r"2 levels of anchors and 3 steps, and 2 levels of strides \(8, 16\) come in"),
        ("ssd", {"sizes": (1, 2)}, "2 levels need 3 positive sizes"),
        ("ssd", {"sizes": (1, 2, -1)}, "2 levels need 3 positive sizes"),
        ("ssd", {"sizes": (1, 2, 3), "steps": (8,)}, "2 levels of anchors and 1 steps"),
    ],
)
def test_complaints(name, options, message):
    with pytest.raises(ValueError, match=message):
        HEADS.create(name, TWO, num_classes=1, **options)
