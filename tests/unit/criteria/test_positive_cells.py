"""Which cells answer for an object, as maps a level."""

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.yolov3 import YOLOv3Criterion
from pyrafuse.heads.yolov3 import YOLOv3Head


@pytest.fixture
def predictions():
    """Of two images of 64 x 96 pixels."""
    torch.manual_seed(0)
    head = YOLOv3Head(PyramidSpec((4, 4, 4), (8, 16, 32)), num_classes=2, adaption=False)
    return head(tuple(torch.randn(2, 4, 64 // s, 96 // s) for s in (8, 16, 32)))


def test_an_object_is_at_its_level_in_the_cell_of_its_centre(predictions):
    """Shapes (10, 13), (62, 45) and (116, 90) are anchors of strides 8, 16 and 32."""
    boxes = torch.tensor([[20.0, 30.0, 30.0, 43.0], [18.0, 10.0, 80.0, 55.0], [-18.0, -5.0, 98.0, 85.0]])
    targets = Targets.pad([boxes, boxes[:1]], [torch.zeros(3).long(), torch.ones(1).long()])
    cells = YOLOv3Criterion().positive_cells(predictions, targets)
    assert [tuple(c.shape) for c in cells] == [(2, 8, 12), (2, 4, 6), (2, 2, 3)]
    assert [c.nonzero().tolist() for c in cells] == [[[0, 4, 3], [1, 4, 3]], [[0, 2, 3]], [[0, 1, 1]]]


def test_crowds_and_padding_answer_for_nothing(predictions):
    targets = Targets.pad(
        [torch.tensor([[0.0, 0.0, 10.0, 13.0]])], [torch.zeros(1).long()], crowd=[torch.tensor([True])]
    )
    both = Targets.empty(2, 1)
    both.boxes[:1], both.crowd[:1] = targets.boxes, targets.crowd
    assert not any(c.any() for c in YOLOv3Criterion().positive_cells(predictions, both))
    assert not any(c.any() for c in YOLOv3Criterion().positive_cells(predictions, Targets.empty(2)))
