"""The one clipping of boxes, of arrays and tensors alike."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from pyrafuse.base.boxes import clip_boxes

BOXES = [[-3.0, 4, 90, 70], [20, -9, 30, -2], [85, 10, 99, 20]]
CUT = [[0, 4, 80, 50], [20, 0, 30, 0], [80, 10, 80, 20]]


@pytest.mark.parametrize("create", [torch.tensor, lambda rows: np.array(rows, np.float32)])
def test_boxes_end_at_the_edges_and_those_given_stay(create):
    boxes = create(BOXES)
    clipped = clip_boxes(boxes, (50, 80))
    assert type(clipped) is type(boxes)
    assert clipped.dtype == boxes.dtype
    assert clipped.tolist() == CUT
    assert boxes.tolist() == BOXES
    assert clip_boxes(boxes[:0], (50, 80)).shape == (0, 4)
    assert clip_boxes(boxes[None], (50, 80)).tolist() == [CUT]


def test_each_box_may_have_an_image_of_its_own():
    heights, widths = np.float32([[50], [60], [15]]), np.float32([[80], [25], [90]])
    clipped = clip_boxes(np.array(BOXES, np.float32), (heights, widths))
    assert clipped.tolist() == [[0, 4, 80, 50], [20, 0, 25, 0], [85, 10, 90, 15]]
    assert clipped.dtype == np.float32


def test_it_exports_and_its_gradient_ends_at_the_edges():
    class Clip(torch.nn.Module):
        def forward(self, boxes):
            return clip_boxes(boxes, (50, 80))

    exported = torch.export.export(Clip(), (torch.tensor(BOXES),)).module()
    assert exported(torch.tensor(BOXES) + 1).tolist() == clip_boxes(torch.tensor(BOXES) + 1, (50, 80)).tolist()
    boxes = torch.tensor(BOXES[:1], requires_grad=True)
    clip_boxes(boxes, (50, 80)).sum().backward()
    assert boxes.grad is not None
    assert boxes.grad.tolist() == [[0, 1, 0, 0]]


def test_it_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from pyrafuse.base.boxes import clip_boxes"
    subprocess.run([sys.executable, "-c", code], check=True)
