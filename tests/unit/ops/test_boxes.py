"""Overlaps worked by hand."""

import pytest
import torch

from pyrafuse.ops.boxes import (
    box_area,
    centerness,
    centers_and_sizes,
    enclosing_boxes,
    paired_iou,
    pairwise_intersection,
    pairwise_iou,
    points_in_boxes,
    shape_iou,
)

A = torch.tensor([[0.0, 0.0, 4.0, 2.0], [1.0, 1.0, 3.0, 5.0]])
B = torch.tensor([[0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0], [10.0, 10.0, 11.0, 11.0]])


def test_area():
    assert box_area(A).tolist() == [8, 8]
    assert box_area(torch.tensor([[4.0, 0.0, 0.0, 2.0], [1.0, 1.0, 1.0, 9.0]])).tolist() == [0, 0]


def test_pairwise():
    assert pairwise_intersection(A, B).tolist() == [[8, 4, 0], [2, 1, 0]]
    torch.testing.assert_close(pairwise_iou(A, B), torch.tensor([[1, 4 / 12, 0], [2 / 14, 1 / 15, 0]]))


def test_pairwise_in_batches():
    boxes, others = A.expand(3, 2, 4), B.expand(3, 3, 4)
    torch.testing.assert_close(pairwise_iou(boxes, others), pairwise_iou(A, B).expand(3, 2, 3))


def test_paired():
    torch.testing.assert_close(paired_iou(A, B[:2]), torch.tensor([1, 1 / 15]))


def test_inputs_are_left_alone():
    a, b = A.clone(), B.clone()
    pairwise_iou(a, b)
    assert torch.equal(a, A)
    assert torch.equal(b, B)


def test_empty_boxes_overlap_nothing():
    point = torch.zeros(1, 4)
    assert paired_iou(point, point).tolist() == [0]
    assert pairwise_iou(point, A).tolist() == [[0, 0]]
    assert pairwise_iou(A, torch.zeros(0, 4)).shape == (2, 0)


def test_shapes():
    sizes = torch.tensor([[4.0, 2.0], [2.0, 4.0]])
    torch.testing.assert_close(shape_iou(sizes[:, None], sizes), torch.tensor([[1, 4 / 12], [4 / 12, 1]]))


def test_centers():
    centers, sizes = centers_and_sizes(A)
    assert centers.tolist() == [[2, 1], [2, 3]]
    assert sizes.tolist() == [[4, 2], [2, 4]]


@pytest.mark.parametrize("overlap", [paired_iou, lambda a, b: shape_iou(a[:, 2:], b[:, 2:])])
def test_gradients(overlap):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(5, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat((corners, corners + 0.5 + torch.rand(5, 2, generator=generator, dtype=torch.float64)), dim=1)
    assert torch.autograd.gradcheck(overlap, (boxes.clone().requires_grad_(), boxes.flip(0).requires_grad_()))


def test_enclosing():
    assert enclosing_boxes(A, B[:2]).tolist() == [[0, 0, 4, 2], [1, 0, 6, 5]]


def test_points():
    points = torch.tensor([[2.0, 1.0], [3.0, 0.5], [5.0, 1.0]])
    box = torch.tensor([0.0, 0.0, 4.0, 2.0]).expand(3, 4)
    assert points_in_boxes(points, box).tolist() == [1, 0.5, -1]
    torch.testing.assert_close(centerness(points, box), torch.tensor([1, (1 / 3 / 3) ** 0.5, 0]))
