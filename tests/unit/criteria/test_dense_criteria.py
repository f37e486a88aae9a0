"""Losses of dense heads worked by hand; level weights against the original's."""

import json
import math
from dataclasses import replace

import pytest
import torch

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.base.parts import part
from pyrafuse.core.assignment import BACKGROUND, IGNORED, Assignment
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.guided_dense import GuidedDenseCriterion
from pyrafuse.criteria.level_weights import LevelWeights, ScheduledLevelWeights
from pyrafuse.losses.boxes import giou_loss
from pyrafuse.models.factory import create_model
from pyrafuse.ops.coders import DeltaCoder
from vectors import FOLDER


def levels_of(num: int) -> PyramidSpec:
    return PyramidSpec((1,) * num, tuple(8 * 2**i for i in range(num)))


ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 20, 20], [40, 40, 60, 60]])
TARGETS = Targets.pad([torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20]])], [torch.tensor([1, 0])])


def predictions(**changes) -> DensePredictions:
    grid = DenseGrid(
        anchors=ANCHORS,
        strides=torch.tensor([8.0, 8, 16, 16]),
        levels=torch.tensor([0, 0, 1, 1]),
        counts=(2, 2),
        sizes=((1, 2), (1, 2)),
    )
    plain = DensePredictions(
        classes=torch.zeros(1, 4, 2), deltas=torch.zeros(1, 4, 4), quality=torch.zeros(1, 4), grid=grid
    )
    return replace(plain, **changes)


def fixed(*objects: int):
    return lambda *_: Assignment(objects=torch.tensor([objects]), overlaps=torch.zeros(1, len(objects)))


EASY, HARD = (
    0.75 * 0.25 * math.log(2),
    0.25 * 0.25 * math.log(2),
)  # focal loss of a zero logit: of a wrong class, of the right one


class TestDense:
    def test_classes_by_hand(self):
        criterion = DenseCriterion(assigner=fixed(0, BACKGROUND, IGNORED, BACKGROUND), coder=DeltaCoder())
        report = criterion.by_level(predictions(), TARGETS)
        assert report.losses["classification"].tolist() == pytest.approx([EASY + HARD + 2 * EASY, 2 * EASY])
        assert report.num_positives.tolist() == [1, 0]

    def test_boxes_by_hand(self):
        criterion = DenseCriterion(assigner=fixed(0, BACKGROUND, 1, BACKGROUND), coder=DeltaCoder(), box_weight=3)
        deltas = torch.tensor([[[0.5, 0, 0, 0], [9, 9, 9, 9], [0, 0, 0.25, -0.25], [9, 9, 9, 9]]])
        report = criterion.by_level(predictions(deltas=deltas), TARGETS)
        # both anchors are their objects: wanted are zeros; two positives
        assert report.losses["box"].tolist() == pytest.approx([3 * 0.5 / 2, 3 * 0.5 / 2])

    def test_decoded_boxes(self):
        criterion = DenseCriterion(assigner=fixed(0, 1, BACKGROUND, BACKGROUND), coder=DeltaCoder(), box_loss=giou_loss)
        report = criterion.by_level(predictions(), TARGETS)
        # (20, 0, 30, 10) and (0, 0, 20, 20) touch; the box around them has 600 square pixels, 100 of them empty
        assert report.losses["box"].tolist() == pytest.approx([(1 + 100 / 600) / 2, 0], abs=1e-6)

    def test_centerness_weighs_boxes(self):
        criterion = DenseCriterion(
            assigner=fixed(1, BACKGROUND, 1, BACKGROUND), coder=DeltaCoder(), quality="centerness", least_per_image=0
        )
        report = criterion.by_level(predictions(), TARGETS)
        # centre (5, 5) in (0, 0, 20, 20): sqrt(5/15 * 5/15); the other is central
        encoded = 0.5 + 0.5 + 2 * math.log(2)
        assert report.losses["box"].tolist() == pytest.approx([encoded / 3 / (4 / 3), 0])
        assert report.losses["quality"].tolist() == pytest.approx([math.log(2) / 2] * 2)

    def test_quality_is_the_overlap(self):
        criterion = DenseCriterion(assigner=fixed(1, BACKGROUND, 1, BACKGROUND), coder=DeltaCoder(), quality="iou")
        logits = torch.tensor([[2.0, 0, 2.0, 0]])
        report = criterion.by_level(predictions(quality=logits), TARGETS)
        sure, unsure = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
        assert report.losses["quality"].tolist() == pytest.approx([(sure / 4 + unsure * 3 / 4) / 2, sure / 2])

    def test_boxes_with_rows_of_their_own(self):
        criterion = DenseCriterion(
            assigner=fixed(0, BACKGROUND, BACKGROUND, BACKGROUND),
            box_assigner=fixed(BACKGROUND, BACKGROUND, 1, BACKGROUND),
            coder=DeltaCoder(),
        )
        report = criterion.by_level(predictions(deltas=torch.ones(1, 4, 4)), TARGETS)
        assert report.losses["box"].tolist() == pytest.approx([0, 4])
        assert report.losses["classification"].tolist() == pytest.approx([3 * EASY + HARD, 4 * EASY])
        assert report.num_positives.tolist() == [1, 0]

    def test_mixup_weights(self):
        criterion = DenseCriterion(assigner=fixed(0, IGNORED, IGNORED, IGNORED), coder=DeltaCoder())
        targets = replace(TARGETS, weights=torch.tensor([[0.25, 1]]))
        losses = criterion(predictions(deltas=torch.ones(1, 4, 4)), targets)
        assert losses["classification"].item() == pytest.approx((EASY + HARD) / 4)
        assert losses["box"].item() == pytest.approx(1)

    def test_an_image_without_positives_counts_for_one(self):
        two = Targets.pad([TARGETS.boxes[0], torch.zeros(0, 4)], [TARGETS.labels[0], torch.zeros(0)])
        both = replace(predictions(), classes=torch.zeros(2, 4, 2), deltas=torch.ones(2, 4, 4), quality=None)
        counted = DenseCriterion(assigner=MaxIoUAssigner(), coder=DeltaCoder())(both, two)
        uncounted = DenseCriterion(assigner=MaxIoUAssigner(), coder=DeltaCoder(), least_per_image=0)(both, two)
        torch.testing.assert_close(counted["box"] * 3, uncounted["box"] * 2)

    def test_level_weights(self):
        assign = fixed(0, BACKGROUND, BACKGROUND, BACKGROUND)
        plain = DenseCriterion(assigner=assign, coder=DeltaCoder())
        weighed = DenseCriterion(assigner=assign, coder=DeltaCoder(), level_weights=LevelWeights(levels_of(2)))
        one, other = (c.by_level(predictions(), TARGETS).losses["classification"] for c in (plain, weighed))
        assert (other / one).tolist() == pytest.approx([1, 2])
        assert weighed.state_dict()["level_weights.counters"].tolist() == [[2, 0]]

    def test_complaints(self):
        with pytest.raises(ValueError, match="not 'area'"):
            DenseCriterion(assigner=fixed(0), coder=DeltaCoder(), quality="area")
        guided = GuidedDenseCriterion(DenseCriterion(assigner=fixed(0, 0, 0, 0), coder=DeltaCoder()))
        with pytest.raises(ValueError, match="have no guides"):
            guided(predictions(), TARGETS)


class TestLevelWeights:
    def test_as_the_original(self):
        for case in json.loads((FOLDER / "mmdet/ddod_reweight.json").read_text()):
            weights = LevelWeights(levels_of(len(case["factors"][0])))
            for positives, factors in zip(case["positives_per_level_each_call"], case["factors"], strict=True):
                assert weights(torch.tensor(positives)).tolist() == pytest.approx(factors, abs=1e-6)

    def test_apart(self):
        weights = LevelWeights(levels_of(2), shared=False, ends=(0.5, 4.5))
        assert weights(torch.tensor([3, 1])).tolist() == pytest.approx([0.5, 4.5])
        assert weights(torch.tensor([0, 9]), of_boxes=True).tolist() == pytest.approx([4.5, 0.5])
        assert weights.counters.tolist() == [[3, 1], [0, 9]]

    def test_nothing_is_counted_outside_training(self):
        weights = LevelWeights(levels_of(2))
        weights(torch.tensor([4, 2]))
        assert weights.eval()(torch.tensor([0, 50])).tolist() == pytest.approx([1, 2])
        assert weights.counters.tolist() == [[4, 2]]

    def test_they_go_on_after_a_restart(self):
        first, second = LevelWeights(levels_of(2)), LevelWeights(levels_of(2))
        first(torch.tensor([4, 2]))
        second.load_state_dict(first.state_dict())
        assert second(torch.tensor([1, 2])).tolist() == first(torch.tensor([1, 2])).tolist() == [1, 2]

    @pytest.mark.parametrize("model", ["retinanet", "fcos", "atss"])
    def test_a_schedule_weighs_each_level_whatever_its_positives(self, model):
        with torch.device("meta"):
            options = {"criterion": {"level_weights": part("scheduled", schedule=(1, 3))}}
            criterion = create_model(model, num_classes=2, **options).criterion
        weights = ScheduledLevelWeights(levels_of(5), schedule=(1, 3))
        assert type(criterion.level_weights) is type(weights)
        for positives in ([9.0, 0, 0, 0, 0], [0.0, 0, 0, 0, 9]):
            assert weights(torch.tensor(positives), of_boxes=True).tolist() == [1, 1.5, 2, 2.5, 3]
        assert not weights.state_dict()

    @pytest.mark.parametrize("schedule", [(-1, 2), (1,)])
    def test_complaints_about_a_schedule(self, schedule):
        with pytest.raises(ValueError, match="a schedule is two weights, not negative"):
            ScheduledLevelWeights(levels_of(2), schedule=schedule)

    @pytest.mark.parametrize("options", [{"ends": (-1, 2)}, {"ends": (1, -2)}])
    def test_complaints(self, options):
        with pytest.raises(ValueError, match="not negative, got"):
            LevelWeights(levels_of(2), **options)
