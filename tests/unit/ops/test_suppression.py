"""Suppression per class, against one call of torchvision a class."""

import math

import pytest
import torch
from torchvision.ops import box_iou, nms

from pyrafuse.ops.suppression import class_aware_nms, matrix_nms, nms_in_graph, nms_of_batch, soft_nms, vote_boxes


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


def soften(scores=SOFT_SCORES, labels=(0, 0, 0), **options) -> list[float]:
    """The final scores of one image."""
    final = soft_nms(SOFT_BOXES[None], scores[None], torch.tensor([labels]), num_labels=2, **options)
    return final[0].tolist()


def test_soft_by_hand():
    assert soften(method="linear") == pytest.approx([0.8, 0.3, 0.4])
    assert soften(method="gaussian", sigma=1.0) == pytest.approx([0.8, 0.6 * math.exp(-0.25), 0.4])


def test_soft_acts_within_labels_and_images():
    assert soften(labels=(0, 1, 0)) == pytest.approx([0.8, 0.6, 0.4])
    two = soft_nms(
        torch.stack((SOFT_BOXES, SOFT_BOXES.flip(0))),
        torch.stack((SOFT_SCORES, SOFT_SCORES.flip(0))),
        torch.zeros(2, 3, dtype=torch.int64),
        num_labels=1,
        method="linear",
    )
    torch.testing.assert_close(two, torch.tensor([[0.8, 0.3, 0.4], [0.4, 0.3, 0.8]]))


def test_soft_overlap_below_the_bound_is_left_alone():
    assert soften(method="linear", iou=0.5) == SOFT_SCORES.tolist()


def test_soft_drops_what_decays():
    assert soften(method="linear", least_score=0.35) == pytest.approx([0.8, -1, 0.4])
    assert soften(least_score=0.9) == [-1, -1, -1]
    assert soften(method="linear", most=2) == pytest.approx([0.8, -1, 0.4])


def test_soft_complaint():
    with pytest.raises(ValueError, match="not 'hard'"):
        soften(method="hard")


def test_matrix_by_hand():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 10]]])
    scores = torch.tensor([[0.9, 0.8, 0.7, -1.0]])
    found = matrix_nms(boxes, scores, torch.zeros(1, 4, dtype=torch.int64), sigma=0.5)
    # overlaps 0.5 (first, second), 0.4 (first, third), 0.8 (second, third); the second is itself covered by 0.5
    third = min(math.exp(-(0.4**2) / 0.5), math.exp((0.5**2 - 0.8**2) / 0.5))
    torch.testing.assert_close(found[:, :3], torch.tensor([[0.9, 0.8 * math.exp(-(0.5**2) / 0.5), 0.7 * third]]))
    assert found[0, 3] < 0
    apart = matrix_nms(boxes, scores, torch.tensor([[0, 1, 2, 0]]))
    torch.testing.assert_close(apart[:, :3], scores[:, :3])
    assert matrix_nms(boxes[:, :0], scores[:, :0], torch.zeros(1, 0, dtype=torch.int64)).shape == (1, 0)


def naive(boxes, labels, count, iou) -> list[bool]:
    kept: list[bool] = []
    for i in range(len(boxes)):
        better = [j for j in range(i) if kept[j] and labels[j] == labels[i]]
        covered = [box_iou(boxes[j][None], boxes[i][None]).item() > iou for j in better]
        kept.append(i < count and not any(covered))
    return kept


def chain(length: int) -> torch.Tensor:
    """Boxes of which each covers its neighbours in the row alone, by two thirds."""
    starts = torch.arange(length)[:, None] * torch.tensor([2.0, 0, 2, 0])
    return starts + torch.tensor([0.0, 0, 10, 10])


@pytest.mark.parametrize("suppress", [nms_of_batch, nms_in_graph])
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 0.7])
def test_a_batch_as_a_naive_loop(suppress, iou, monkeypatch):
    monkeypatch.setattr("pyrafuse.ops.suppression.BLOCK", 16)
    generator = torch.Generator().manual_seed(int(iou * 10))
    corners = torch.randint(0, 40, (3, 70, 2), generator=generator).double()
    boxes = torch.cat((corners, corners + torch.randint(0, 30, (3, 70, 2), generator=generator)), dim=2)
    boxes[2] = chain(70)
    labels = torch.randint(0, 3, (3, 70), generator=generator)
    labels[2] = 0
    counts = [70, 33, 70]
    is_valid = torch.arange(70) < torch.tensor(counts)[:, None]
    kept = suppress(boxes, labels, is_valid, iou=iou)
    expected = [naive(*image, iou) for image in zip(boxes, labels, counts, strict=True)]
    assert kept.tolist() == expected
    assert torch.equal(suppress(boxes, labels, iou=iou)[[0, 2]], kept[[0, 2]])
    if iou == 0.5:
        assert expected[2] == [i % 2 == 0 for i in range(70)]  # each is let in by the one that its neighbour drops
    none = suppress(boxes[:, :0], labels[:, :0], is_valid[:, :0], iou=iou)
    assert none.shape == (3, 0)


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
