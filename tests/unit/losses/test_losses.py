"""Losses worked by hand, and what holds for every input."""

import math

import pytest
import torch

from pyrafuse.losses.boxes import (
    bounded_iou_loss,
    ciou_loss,
    diou_loss,
    eiou_loss,
    giou_loss,
    iou_loss,
    siou_loss,
)
from pyrafuse.losses.classification import (
    cross_entropy,
    distribution_focal,
    focal,
    focal_of_labels,
    quality_focal,
    smoothed_targets,
)
from pyrafuse.losses.harmonizing import HarmonizedClassification, HarmonizedRegression
from pyrafuse.losses.regression import balanced_l1, smooth_l1

BOX = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
HALF = torch.tensor([[2.0, 0.0, 6.0, 2.0]])  # shares 4 of 12 square pixels with BOX
ALL = (iou_loss, bounded_iou_loss, giou_loss, diou_loss, ciou_loss, eiou_loss, siou_loss)


def test_boxes_by_hand():
    for loss, expected in (
        (iou_loss(BOX, HALF), math.log(3)),
        (iou_loss(BOX, HALF, mode="linear"), 2 / 3),
        (iou_loss(BOX, HALF, mode="square"), 8 / 9),
        (giou_loss(BOX, HALF), 2 / 3),
        (giou_loss(BOX, torch.tensor([[6.0, 0.0, 8.0, 2.0]])), 1 + 4 / 16),
        (diou_loss(BOX, HALF), 2 / 3 + 4 / 40),
        (ciou_loss(BOX, HALF), 2 / 3 + 4 / 40),
        (eiou_loss(BOX, HALF), 2 / 3 - 0.05),
        (siou_loss(BOX, HALF), 2 / 3 + 0.5 * (1 - math.exp(-2 * (2 / 6) ** 2))),
    ):
        assert loss.item() == pytest.approx(expected, abs=1e-5)
    # 2 px away on x, sides of 4: 1 - (4 - 4) / (4 + 4)
    assert bounded_iou_loss(BOX, HALF)[0].tolist() == pytest.approx([1 - 0.1, 0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("loss", ALL)
def test_finite_wherever_boxes_are(loss):
    awkward = torch.tensor([[0.0, 0, 4, 2], [0, 0, 0, 0], [4, 2, 0, 0], [-900, -900, 4000, 4000], [4, 0, 8, 2]])
    boxes = awkward.repeat_interleave(5, 0).requires_grad_()
    values = loss(boxes, awkward.repeat(5, 1))
    values.sum().backward()
    assert values.isfinite().all()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("loss", ALL)
def test_least_where_boxes_agree(loss):
    assert loss(BOX, BOX).abs().max().item() == pytest.approx(0, abs=1e-3)
    assert loss(BOX + 0.5, BOX).sum().item() > 0


def test_regression_by_hand():
    x = torch.tensor([0.0, 0.5, 3.0])
    torch.testing.assert_close(smooth_l1(x, torch.zeros(3)), torch.tensor([0, 0.125, 2.5]))
    torch.testing.assert_close(smooth_l1(x, torch.zeros(3), beta=0.25), torch.tensor([0, 0.375, 2.875]))
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    balanced_l1(x, torch.zeros(2)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1.5, 1.5])


def test_focal_by_hand():
    logits = torch.zeros(1, 3)
    each = [0.75 * 0.25 * math.log(2), 0.25 * 0.25 * math.log(2)]
    assert focal(logits, torch.tensor([[0.0, 1, 0]]))[0].tolist() == pytest.approx([each[0], each[1], each[0]])
    assert focal_of_labels(logits, torch.tensor([1])).item() == pytest.approx(2 * each[0] + each[1])
    assert focal_of_labels(logits, torch.tensor([-1])).item() == pytest.approx(3 * each[0])


def test_quality_focal_by_hand():
    loss = quality_focal(torch.zeros(2, 2), torch.tensor([0, -1]), torch.tensor([0.75, 0.9]))
    nothing, right = 0.25 * math.log(2), 0.0625 * math.log(2)
    assert loss.tolist() == pytest.approx([nothing + right, 2 * nothing])


def test_distribution_focal_by_hand():
    loss = distribution_focal(torch.zeros(3, 4), torch.tensor([0.0, 1.25, 3.0]))
    assert loss.tolist() == pytest.approx([math.log(4)] * 3)
    sure = torch.tensor([[0.0, 50.0, 0.0, 0.0]])
    assert distribution_focal(sure, torch.tensor([1.5])).item() == pytest.approx(25)


def test_cross_entropy_by_hand():
    assert cross_entropy(torch.zeros(1, 4), torch.tensor([3])).item() == pytest.approx(math.log(4))


def test_harmonized_by_hand():
    # gradient norms 0.5, 0.5 and nearly 0: two populated bins of 2 and 1
    logits, wanted = torch.tensor([0.0, 0.0, -20.0]), torch.tensor([0, 1, 0])
    counts = torch.ones(3, dtype=torch.bool)
    loss = HarmonizedClassification(num_bins=10, momentum=0)
    assert loss(logits, wanted, counts).item() == pytest.approx((2 * math.log(2) * 3 / 2 / 2) / 3)
    half = torch.tensor([True, False, False])
    assert loss(logits, wanted, half).item() == pytest.approx(math.log(2))
    assert loss(logits, wanted, ~counts).item() == 0
    regress = HarmonizedRegression(momentum=0)
    assert regress(torch.tensor([3.0]), torch.tensor([0.0]), counts[:1]).item() == pytest.approx(2.98, abs=1e-3)


def test_populations_move_and_are_kept():
    loss = HarmonizedClassification(num_bins=2, momentum=0.5)
    logits, wanted = torch.zeros(4), torch.tensor([0, 0, 0, 0])
    counts = torch.ones(4, dtype=torch.bool)
    loss(logits, wanted, counts)
    assert loss.state_dict()["density.population"].tolist() == [0, 2]
    loss(logits, wanted, counts)
    assert loss.state_dict()["density.population"].tolist() == [0, 3]


@pytest.mark.parametrize("make", [HarmonizedClassification, HarmonizedRegression])
def test_harmonized_losses_of_two_processes_are_those_of_one(in_processes, make):
    """Twice, as populations move; the second process has one element that counts of its first five, and then none."""
    generator = torch.Generator().manual_seed(0)
    found, wanted = torch.randn(2, 10, generator=generator), torch.randint(2, (2, 10), generator=generator)
    counts = torch.tensor([[True] * 6 + [False] * 4, [True] * 5 + [False] * 5])

    def learn(share):
        loss = make(num_bins=4, momentum=0.5)
        given = found[:, share].clone().requires_grad_()
        for call in (0, 1):
            loss(given[call], wanted[call, share], counts[call, share]).backward()
        return given.grad, loss.density.population

    gradient, population = learn(slice(None))
    shares = in_processes(2, lambda rank: learn(slice(5 * rank, 5 * rank + 5)))
    torch.testing.assert_close(torch.cat([g for g, _ in shares], dim=1) / 2, gradient)  # as their mean is learnt
    for _, of_share in shares:
        torch.testing.assert_close(of_share, population, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iou_loss(BOX, BOX, mode="cubic"), "not 'cubic'"),
        (lambda: smooth_l1(BOX, BOX, beta=0), "there is l1"),
        (lambda: balanced_l1(BOX, BOX, gamma=-1), "must be positive"),
        (lambda: HarmonizedClassification(num_bins=0), "got 0"),
    ],
)
def test_complaints(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [(1, (1, 0)), (2, (2 / 3, 1 / 3)), (3, (2 / 3, 1 / 3)), (4, (3 / 4, 1 / 4)), (80, (79 / 80, 1 / 80))],
)
def test_smoothing_leaves_the_true_class_the_largest_target(num_classes, expected):
    own, other = smoothed_targets(num_classes)
    assert (own, other) == pytest.approx(expected)
    assert own > other
