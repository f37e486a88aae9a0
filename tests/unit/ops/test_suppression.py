"""Suppression per class, against one call of torchvision a class."""

import math

import pytest
import torch
from torchvision.ops import nms

from pyrafuse.ops.suppression import class_aware_nms, soft_nms, vote_boxes


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]])
    labels = torch.tensor([0, 0, 1, 0])
    scores = torch.tensor([0.5, 0.9, 0.4, 0.7])
    # the second covers the first by 0.9; the third is of another class
    assert class_aware_nms(boxes, scores, labels, iou=0.65).tolist() == [1, 3, 2]
    assert class_aware_nms(boxes, scores, labels, iou=0.95).tolist() == [1, 3, 0, 2]


def test_as_one_call_a_class():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(600, 2, generator=generator) * 4000 - 500
    boxes = torch.cat((corners, corners + torch.rand(600, 2, generator=generator) * 900), dim=1)
    scores = torch.rand(600, generator=generator)
    labels = torch.randint(0, 80, (600,), generator=generator) % 7
    got = class_aware_nms(boxes, scores, labels, iou=0.3)
    expected = []
    for label in range(7):
        rows = (labels == label).nonzero().squeeze(1)
        expected += rows[nms(boxes[rows], scores[rows], 0.3)].tolist()
    assert set(got.tolist()) == set(expected)
    assert (scores[got].diff() <= 0).all()
    assert 50 < len(got) < 600


def test_nothing():
    none = class_aware_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), iou=0.5)
    assert none.tolist() == []


SOFT_BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
SOFT_SCORES = torch.tensor([0.8, 0.6, 0.4])


def test_soft_by_hand():
    kept, scores = soft_nms(SOFT_BOXES, SOFT_SCORES, method="linear")
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.4, 0.3]))
    kept, scores = soft_nms(SOFT_BOXES, SOFT_SCORES, method="gaussian", sigma=1.0)
    assert kept.tolist() == [0, 1, 2]
    torch.testing.assert_close(scores, torch.tensor([0.8, 0.6 * math.exp(-0.25), 0.4]))


def test_soft_overlap_below_the_bound_is_left_alone():
    kept, scores = soft_nms(SOFT_BOXES, SOFT_SCORES, method="linear", iou=0.5)
    assert scores.tolist() == SOFT_SCORES.tolist()
    assert kept.tolist() == [0, 1, 2]


def test_soft_drops_what_decays():
    assert soft_nms(SOFT_BOXES, SOFT_SCORES, method="linear", least_score=0.35)[0].tolist() == [0, 2]
    assert soft_nms(SOFT_BOXES[:0], SOFT_SCORES[:0])[0].tolist() == []
    assert soft_nms(SOFT_BOXES, SOFT_SCORES, least_score=0.9)[0].tolist() == []


def test_soft_complaint():
    with pytest.raises(ValueError, match="not 'hard'"):
        soft_nms(SOFT_BOXES, SOFT_SCORES, method="hard")


def test_votes_by_hand():
    voters = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [4, 4, 20, 20], [7, 7, 7, 7]])
    scores = torch.tensor([0.6, 0.2, 0.9, 0.5])
    # the first two overlap by 0.8, the third by 0.1; the last has no area, so that nobody overlaps it
    found = vote_boxes(voters[[0, 2, 3]], voters, scores, iou=0.6)
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0, 10, (0.6 * 10 + 0.2 * 8) / 0.8]))
    assert found[1].tolist() == [4, 4, 20, 20]
    assert found[2].tolist() == [7, 7, 7, 7]
    assert vote_boxes(voters[:0], voters[:0], scores[:0], iou=0.6).shape == (0, 4)


def test_the_mean_of_votes_errs_less_than_the_best_box():
    generator = torch.Generator().manual_seed(1)
    truth = torch.tensor([20.0, 30, 60, 90])
    voters = truth + torch.randn(40, 4, generator=generator) * 3
    scores = torch.rand(40, generator=generator)
    best = voters[scores.argmax()]
    found = vote_boxes(best[None], voters, scores, iou=0.5)[0]
    assert (found - truth).abs().max() < (best - truth).abs().max() / 2
