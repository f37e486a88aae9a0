"""YOLOv3's head with classes and boxes predicted apart."""

import math

import pytest
import torch

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.yolov3 import YOLOv3Head

SPEC = PyramidSpec((6, 8), (8, 16))


@pytest.fixture
def head() -> YOLOv3Head:
    torch.manual_seed(0)
    return YOLOv3Head(SPEC, num_classes=3, adaption=False, branches=5, prior=0.01).eval()


def pyramid() -> tuple[torch.Tensor, ...]:
    return torch.randn(2, 6, 5, 4), torch.randn(2, 8, 3, 2)


def test_branches_give_the_same_rows_as_one_convolution(head):
    plain = YOLOv3Head(SPEC, num_classes=3, adaption=False).eval()
    given = pyramid()
    ours, theirs = head(given), plain(given)
    assert ours.deltas.shape == theirs.deltas.shape == (2, 4 * (20 + 6), 4)
    assert ours.classes.shape == theirs.classes.shape
    assert torch.equal(ours.grid.cells, theirs.grid.cells)


def test_objectness_starts_from_the_prior(head):
    expected = torch.full((2, 104), -math.log(99))
    assert torch.allclose(head(pyramid()).objectness, expected, atol=0.3)


def test_classes_are_apart_from_boxes(head):
    given = tuple(x.requires_grad_() for x in pyramid())
    predictions = head(given)
    predictions.classes.sum().backward(retain_graph=True)
    for output in head.outputs:
        assert output.boxes.weight.grad.abs().sum() == 0
        assert output.box_branch.conv.weight.grad.abs().sum() == 0
        assert output.class_branch.conv.weight.grad.abs().sum() > 0
    (predictions.deltas.sum() + predictions.objectness.sum()).backward()
    for output in head.outputs:
        assert output.box_branch.conv.weight.grad.abs().sum() > 0


def test_each_channel_is_where_one_convolution_has_it(head):
    """Slot by slot: four of the box, one of objectness, then the classes."""
    output = head.outputs[1]
    x = torch.randn(1, 8, 3, 2)
    values = output(x).unflatten(1, (4, 8))
    classes = output.classes(output.class_branch(x)).unflatten(1, (4, 3))
    boxes = output.boxes(output.box_branch(x)).unflatten(1, (4, 5))
    assert torch.equal(values[:, :, 5:], classes)
    assert torch.equal(values[:, :, :5], boxes)
