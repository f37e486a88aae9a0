"""Which cells answer for an object, as maps a level."""

import pytest
import torch

from pyrafuse.core.losses import sum_by_level
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.yolov3 import YOLOv3Criterion
from pyrafuse.heads.dense import grid_of
from pyrafuse.heads.yolov3 import YOLOv3Head


@pytest.fixture
def predictions():
    """Of two images of 64 x 96 pixels."""
    torch.manual_seed(0)
    head = YOLOv3Head(PyramidSpec((4, 4, 4), (8, 16, 32)), num_classes=2, adaption=False)
    return head(tuple(torch.randn(2, 4, 64 // s, 96 // s) for s in (8, 16, 32)))


def positive_cells(predictions, targets):
    return predictions.grid.cells_of(YOLOv3Criterion().by_level(predictions, targets).is_positive)


def test_an_object_is_at_its_level_in_the_cell_of_its_centre(predictions):
    """Shapes (10, 13), (62, 45) and (116, 90) are anchors of strides 8, 16 and 32."""
    boxes = torch.tensor([[20.0, 30.0, 30.0, 43.0], [18.0, 10.0, 80.0, 55.0], [-18.0, -5.0, 98.0, 85.0]])
    targets = Targets.pad([boxes, boxes[:1]], [torch.zeros(3).long(), torch.ones(1).long()])
    cells = positive_cells(predictions, targets)
    assert [tuple(c.shape) for c in cells] == [(2, 8, 12), (2, 4, 6), (2, 2, 3)]
    assert [c.nonzero().tolist() for c in cells] == [[[0, 4, 3], [1, 4, 3]], [[0, 2, 3]], [[0, 1, 1]]]


def test_crowds_and_padding_answer_for_nothing(predictions):
    targets = Targets.pad(
        [torch.tensor([[0.0, 0.0, 10.0, 13.0]])], [torch.zeros(1).long()], crowd=[torch.tensor([True])]
    )
    both = Targets.empty(2, 1)
    both.boxes[:1], both.crowd[:1] = targets.boxes, targets.crowd
    assert not any(c.any() for c in positive_cells(predictions, both))
    assert not any(c.any() for c in positive_cells(predictions, Targets.empty(2)))


def test_cells_of_a_dense_grid_follow_its_rows():
    """Two levels of 2 x 3 and 1 x 1 cells, with two anchors a cell and three."""
    pyramid = (torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 1, 1))
    grid = grid_of(pyramid, (8, 24), [torch.ones(2, 2), torch.ones(3, 2)])
    rows = torch.zeros(2, 15, dtype=torch.bool)
    rows[0, [3, 8, 9]] = True  # the second anchor of cell (0, 1), both of cell (1, 1)
    rows[1, 13] = True
    fine, coarse = grid.cells_of(rows)
    assert fine.nonzero().tolist() == [[0, 0, 1], [0, 1, 1]]
    assert coarse.nonzero().tolist() == [[1, 0, 0]]


def test_sums_by_level_are_those_of_a_loop():
    values = torch.randn(3, 7, dtype=torch.float64)
    for levels in (torch.tensor([2, 2, 0, 0, 0, 1, 1]), torch.randint(0, 4, (3, 7))):
        expected = [0.0] * 4
        for row, level in zip(values.flatten().tolist(), levels.expand(3, 7).flatten().tolist(), strict=True):
            expected[level] += row
        torch.testing.assert_close(sum_by_level(values, levels, 4), torch.tensor(expected, dtype=torch.float64))
