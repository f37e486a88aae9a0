"""From stage to stage, by hand: proposals, refined regions, candidates."""

import math

import torch

from pyrafuse.core.predictions import Candidates, DenseGrid, DensePredictions
from pyrafuse.core.regions import RegionPredictions, Regions, TwoStagePredictions
from pyrafuse.ops.coders import DeltaCoder
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.regions import Propose, decode_two_stage, refine

FINE = [[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [-9, 0, -1, 8]]
COARSE = [[0.0, 0, 10, 10], [8, 8, 40, 40]]
LOGITS = [3.0, 2.0, 1.0, 5.0, 2.5, 0.5]


def proposals_of(logits=LOGITS) -> DensePredictions:
    levels = torch.tensor([0] * 4 + [1] * 2)
    grid = DenseGrid(
        anchors=torch.tensor(FINE + COARSE),
        strides=2.0 ** (levels + 2),
        levels=levels,
        counts=(4, 2),
        sizes=((2, 2),) * 2,
    )
    classes = torch.tensor(logits)[None, :, None]
    return DensePredictions(classes=classes, deltas=torch.zeros(1, 6, 4), quality=None, grid=grid)


def test_proposals():
    regions = Propose(DeltaCoder())(proposals_of(), [(32, 32)])
    # the second is covered by the first, the same box of another level is not; the fourth lies outside; the last is cut
    assert regions.boxes.tolist() == [[FINE[0], COARSE[0], FINE[2], [8, 8, 32, 32], [0] * 4, [0] * 4]]
    assert regions.valid.tolist() == [[True] * 4 + [False] * 2]
    torch.testing.assert_close(regions.scores[0, :4], torch.tensor([3.0, 2.5, 1.0, 0.5]).sigmoid())
    assert not regions.is_object.any()


def test_proposals_are_few():
    few = Propose(DeltaCoder(), max_per_level=2, max_regions=2)(proposals_of(), [(32, 32)])
    # the best two of the finer level are the one outside and the first
    assert few.boxes.tolist() == [[FINE[0], COARSE[0]]]
    loose = Propose(DeltaCoder(), nms_iou=0.9)(proposals_of(), [(32, 32)])
    assert loose.valid.sum() == 5


def said_of(deltas: torch.Tensor, classes: torch.Tensor) -> RegionPredictions:
    valid = torch.tensor([[True, True, False]])
    regions = Regions(
        boxes=torch.tensor([[[10.0, 10, 20, 20], [0, 0, 10, 10], [0, 0, 0, 0]]]),
        scores=valid.float(),
        valid=valid,
        is_object=torch.tensor([[False, True, False]]),
    )
    return RegionPredictions(regions=regions, levels=torch.tensor([[0, 1, 0]]), classes=classes, deltas=deltas)


def test_refined_regions():
    deltas = torch.zeros(1, 3, 2, 4)
    deltas[:, :, 0, 0] = 10.0  # a side to the right, by these deviations; the other class stands still
    classes = torch.tensor([1.0, 0, 9]).expand(1, 3, 3)
    coder = DeltaCoder(stds=(0.1, 0.1, 0.2, 0.2))
    best = refine(said_of(deltas, classes), coder, [(64, 26)], torch.full((1, 3), -1))
    assert best.boxes[0].tolist() == [[20, 10, 26, 20], [0] * 4, [0] * 4]
    assert best.valid.tolist() == [[True, False, False]]  # the second is an object's own box
    told = refine(said_of(deltas, classes), coder, [(64, 26)], torch.ones(1, 3, dtype=torch.int64))
    assert told.boxes[0, 0].tolist() == [10, 10, 20, 20]


def test_scores_are_of_the_mean_of_all_stages_and_boxes_of_the_last():
    first, last = (torch.tensor([a, 0.0, 0]).expand(1, 3, 3) for a in (1.0, 3.0))
    deltas = torch.zeros(1, 3, 1, 4)
    predictions = TwoStagePredictions(proposals_of(), (said_of(deltas + 1, first), said_of(deltas, last)))
    candidates = decode_two_stage(predictions, coder=DeltaCoder())
    assert candidates.boxes[0].tolist() == [[10, 10, 20, 20], [0, 0, 10, 10], [0] * 4]
    total = math.e**2 + 2
    expected = torch.tensor([[math.e**2 / total, 1 / total]] * 2 + [[0, 0]])
    torch.testing.assert_close(candidates.scores[0], expected)
    assert candidates.levels.tolist() == [[0, 1, 0]]


def test_each_class_has_its_own_box_and_each_image_its_levels():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [10, 10, 14, 14]], [[20, 20, 24, 24], [30, 30, 34, 34]]])
    candidates = Candidates(
        boxes=boxes.expand(2, -1, -1, -1),
        scores=torch.tensor([[0.9, 0.2], [0.1, 0.8]]).expand(2, -1, -1),
        levels=torch.tensor([[0, 1], [2, 0]]),
    )
    found = DensePostprocess(score=0.15, multi_label=True, max_per_level=5)(candidates)
    for detections, levels in zip(found, [[0, 1, 0], [2, 0, 2]], strict=True):
        assert detections.boxes[:, 0].tolist() == [0, 30, 10]
        assert detections.labels.tolist() == [0, 1, 1]
        assert detections.levels.tolist() == levels
