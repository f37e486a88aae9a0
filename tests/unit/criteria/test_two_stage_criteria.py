"""Losses of two stages worked by hand: what is divided by samples, which level a region's loss belongs to."""

import math

import pytest
import torch

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.regions import RegionPredictions, Regions, TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.two_stage import RegionCriterion, TwoStageCriterion
from pyrafuse.losses.boxes import iou_loss
from pyrafuse.losses.classification import objectness_loss
from pyrafuse.ops.coders import DeltaCoder

TARGETS = Targets.pad([torch.tensor([[0.0, 0, 20, 10]])], [torch.tensor([1])])
ASSIGNMENT = Assignment(objects=torch.tensor([[0, BACKGROUND, IGNORED]]), overlaps=torch.tensor([[0.5, 0, 0]]))


def said_of(classes: torch.Tensor, deltas: torch.Tensor) -> RegionPredictions:
    valid = torch.tensor([[True, True, False]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [40, 40, 50, 50], [0, 0, 0, 0]]])
    regions = Regions(boxes=boxes, scores=valid.float(), valid=valid, is_object=~valid & valid)
    return RegionPredictions(regions=regions, levels=torch.tensor([[2, 0, 0]]), classes=classes, deltas=deltas)


def proposals_of(anchors: list[list[float]]) -> DensePredictions:
    num = len(anchors)
    levels = torch.zeros(num, dtype=torch.int64)
    strides = torch.full((num,), 8.0)
    grid = DenseGrid(torch.tensor(anchors), strides, levels, counts=(num,), sizes=((4, 4),))
    return DensePredictions(torch.zeros(1, num, 1), torch.zeros(1, num, 4), None, grid)


def test_regions():
    classes = torch.zeros(1, 3, 3, requires_grad=True)
    deltas = torch.zeros(1, 3, 2, 4)
    deltas[0, 0, 0] = 100.0  # of the other class
    deltas[0, 0, 1] = torch.tensor([0.0, 1, 0, 0])
    deltas.requires_grad_()
    criterion = RegionCriterion(coder=DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2)), class_weight=2.0, box_weight=3.0)
    losses = criterion(said_of(classes, deltas), ASSIGNMENT, TARGETS, num_levels=4)
    # two samples: each has a cross entropy of ln 3; the box shall go half a side to the right and be twice as wide
    each = 2 * math.log(3) / 2
    torch.testing.assert_close(losses["classification"].detach(), torch.tensor([each, 0, each, 0]))
    box = 3 * (0.5 / 0.1 + 1 + math.log(2) / 0.2) / 2
    torch.testing.assert_close(losses["box"].detach(), torch.tensor([0, 0, box, 0]))
    sum(loss.sum() for loss in losses.values()).backward()
    assert deltas.grad[0, 0, 1].abs().sum() > 0
    assert deltas.grad.abs().sum() == deltas.grad[0, 0, 1].abs().sum()
    assert (classes.grad[0, 2] == 0).all()


def test_boxes_can_be_compared_in_pixels():
    criterion = RegionCriterion(coder=DeltaCoder(), box_loss=iou_loss)
    said = said_of(torch.zeros(1, 3, 3), torch.zeros(1, 3, 1, 4))
    losses = criterion(said, ASSIGNMENT, TARGETS, num_levels=3)
    box = Targets.pad([said.regions.boxes[0, :1]], [torch.tensor([1])])
    same = criterion(said, ASSIGNMENT, box, num_levels=3)
    assert losses["box"].sum() > 0.1
    torch.testing.assert_close(same["box"], torch.zeros(3), atol=1e-6, rtol=0)


def test_proposals_are_divided_by_samples():
    anchors = [[0.0, 0, 20, 10], [0, 0, 10, 10], [20, 20, 30, 30], [10, 20, 20, 30]]
    assigner = MaxIoUAssigner(positive_iou=0.7, negative_iou=0.3)
    criterion = DenseCriterion(assigner=assigner, coder=DeltaCoder(), class_loss=objectness_loss, over_samples=True)
    report = criterion.by_level(proposals_of(anchors), TARGETS)
    # the second overlaps by half and is ignored: three samples of ln 2, by three
    torch.testing.assert_close(report.losses["classification"], torch.tensor([math.log(2)]))
    assert report.losses["box"] == 0
    assert report.num_positives.tolist() == [1]


def test_an_image_without_objects_counts_one_sample_more():
    assigner = MaxIoUAssigner(positive_iou=0.7, negative_iou=0.3)
    criterion = DenseCriterion(assigner=assigner, coder=DeltaCoder(), class_loss=objectness_loss, over_samples=True)
    losses = criterion(proposals_of([[0.0, 0, 20, 10], [20, 20, 30, 30]]), Targets.empty(1))
    # mmdetection takes its positives for at least one: two samples of ln 2, by three
    torch.testing.assert_close(losses["classification"], torch.tensor(2 * math.log(2) / 3))


def test_anchors_across_the_border_are_ignored():
    # the input is 32 px a side; the first reaches its end
    anchors = [[22.0, 0, 32, 10], [21, 0, 31, 10], [-1, 0, 9, 10], [0, -4, 10, 6]]
    predictions = proposals_of(anchors)
    targets = Targets.pad([torch.tensor([[22.0, 0, 32, 10]])], [torch.tensor([0])])

    def assign(border):
        return MaxIoUAssigner(border=border)(predictions, targets).objects[0].tolist()

    assert assign(None) == [0, 0, BACKGROUND, BACKGROUND]
    assert assign(0) == [IGNORED, 0, IGNORED, IGNORED]
    assert assign(1) == [0, 0, BACKGROUND, IGNORED]


def test_stages_have_names_and_weights():
    proposals = DenseCriterion(assigner=MaxIoUAssigner(), coder=DeltaCoder(), class_loss=objectness_loss)
    stages = [RegionCriterion(coder=DeltaCoder()) for _ in range(2)]
    criterion = TwoStageCriterion(proposals, stages, weights=(1.0, 0.25))
    said = said_of(torch.zeros(1, 3, 3), torch.zeros(1, 3, 1, 4))
    anchors = [[0.0, 0, 20, 10]] * 2
    predictions = TwoStagePredictions(proposals_of(anchors), (said, said), (ASSIGNMENT, ASSIGNMENT))
    with pytest.raises(ValueError, match=r"2 stages need as many weights, got \(1.0,\)"):
        TwoStageCriterion(proposals, stages, weights=(1.0,))
    losses = criterion(predictions, TARGETS)
    assert list(losses) == [
        "proposal_classification", "proposal_box", "stage1_classification", "stage1_box", "stage2_classification",
        "stage2_box",
    ]  # fmt: skip
    torch.testing.assert_close(losses["stage2_classification"] * 4, losses["stage1_classification"])
