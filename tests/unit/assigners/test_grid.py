"""The assigner of the plain YOLOv3, against loops over objects and rows."""

import math

import pytest
import torch

from pyrafuse.assigners.grid import GridAssigner
from pyrafuse.core.assignment import BACKGROUND, IGNORED
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.heads.yolov3 import YOLOv3Head
from pyrafuse.ops.boxes import pairwise_iou

ANCHORS = (((8, 8), (12, 20)), ((30, 24), (20, 44)))
STRIDES, WIDTH, HEIGHT = (8, 16), 96, 64


def predictions_of(batch: int) -> GuidedPredictions:
    head = YOLOv3Head(PyramidSpec((2, 2), STRIDES), num_classes=3, anchors=ANCHORS, guided=False, adaption=False)
    return head([torch.zeros(batch, 2, HEIGHT // s, WIDTH // s) for s in STRIDES])


def naive(rows: list[tuple[int, int, int, tuple[int, int]]], boxes: torch.Tensor, low: float, high: float):
    """Objects of rows (stride, x, y, shape), by the words of the assigner."""
    anchors = torch.tensor(
        [[(x + 0.5) * s - w / 2, (y + 0.5) * s - h / 2, (x + 0.5) * s + w / 2, (y + 0.5) * s + h / 2]
         for s, x, y, (w, h) in rows]
    )  # fmt: skip
    overlap = pairwise_iou(anchors, boxes)
    centers = [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes.tolist()]
    has_center = [any((math.floor(cx / s), math.floor(cy / s)) == (x, y) for cx, cy in centers) for s, x, y, _ in rows]
    found = []
    for row, is_responsible in enumerate(has_center):
        best = int(overlap[row].argmax())
        found.append(BACKGROUND if overlap[row, best] <= low else IGNORED)
        if is_responsible and overlap[row, best] > high:
            found[-1] = best
    for k in range(len(boxes)):
        best = max(float(overlap[row, k]) for row in range(len(rows)) if has_center[row])
        for row in range(len(rows)):
            if has_center[row] and overlap[row, k] == best > 0:
                found[row] = k
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.3, 0.6)])
def test_as_loops(seed, low, high):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(24, 2, generator=generator) * torch.tensor([WIDTH - 20.0, HEIGHT - 20.0])
    boxes = torch.cat((corners, corners + 6 + torch.rand(24, 2, generator=generator) * 30), dim=1)
    boxes = boxes.clamp(max=torch.tensor([WIDTH - 1.0, HEIGHT - 1.0]).repeat(2))
    boxes[3] = boxes[7]  # the same object twice
    split = [boxes[:18], boxes[18:]]
    crowd = [torch.arange(18) == 0, torch.zeros(6, dtype=torch.bool)]
    targets = Targets.pad(split, [torch.zeros(len(b)) for b in split], crowd=crowd)
    predictions = predictions_of(2)
    found = GridAssigner(positive_iou=high, negative_iou=low)(predictions, targets)
    rows = [
        (STRIDES[level], x, y, shape)
        for level in (1, 0)
        for shape in ANCHORS[level]
        for y in range(HEIGHT // STRIDES[level])
        for x in range(WIDTH // STRIDES[level])
    ]
    assert found.objects[1].tolist() == naive(rows, split[1], low, high)
    without_crowd = naive(rows, split[0][1:], low, high)
    assert found.objects[0].tolist() == [k + 1 if k >= 0 else k for k in without_crowd]
    assert found.is_positive.any(dim=1).all()


def test_by_hand():
    # centred in the second cell of 8 px, it shares exactly half of what both cover with the anchors of the first two
    tall = torch.tensor([[0.0, 0, 8, 16]])
    objects = GridAssigner()(predictions_of(1), Targets.pad([tall], [torch.zeros(1)])).objects[0]
    fine = objects[-2 * 96 :]  # 12 x 8 cells
    assert fine[[0, 12]].tolist() == [BACKGROUND, 0]

    # the anchors above and below that of its own cell of 16 px share 34/66 with it
    higher = torch.tensor([[30.0, 12, 50, 68]])
    objects = GridAssigner()(predictions_of(1), Targets.pad([higher], [torch.zeros(1)])).objects[0]
    column = objects[24:48].view(4, 6)[:, 2]  # 6 x 4 cells
    assert column.tolist() == [BACKGROUND, IGNORED, 0, IGNORED]


@pytest.mark.parametrize("rows", [0, 2])
def test_no_objects_at_all(rows):
    found = GridAssigner()(predictions_of(2), Targets.empty(2, rows))
    assert (found.objects == BACKGROUND).all()
    assert (found.overlaps == 0).all()


def test_complaint():
    with pytest.raises(ValueError, match="must not lie above"):
        GridAssigner(positive_iou=0.4)
