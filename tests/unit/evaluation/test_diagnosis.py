"""Why a detector fails, from boxes placed by hand: counts by size, class and level, F1, calibration, advice."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from coco_cases import data_of, found, random_case, record
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.diagnosis import CONFIDENCES, diagnose
from pyrafuse.evaluation.matching import find_best_confidence

SMALL, MEDIUM, LARGE = [0, 0, 20, 20], [30, 0, 80, 50], [90, 90, 190, 190]


def diagnosis_of(data, *detections):
    evaluator = CocoEvaluator(data)
    evaluator.update(range(len(detections)), detections)
    return diagnose(evaluator)


def test_outcomes_are_counted_by_class_size_and_level():
    # every score is equal, so that all detections count
    rows = [(SMALL, 0, 0), (MEDIUM, 0, 1), (LARGE, 1, 2), ([100, 0, 110, 10], 1, 2)]
    boxes, labels, levels = (list(column) for column in zip(*rows, strict=True))
    of_levels = replace(found(boxes, [0.5] * 4, labels), levels=torch.tensor(levels))
    result = diagnosis_of(data_of([record([SMALL, MEDIUM, LARGE, [0, 150, 30, 180]], [0, 1, 1, 0])], "ab"), of_levels)
    # right, classification, localisation, both, duplicate, background, missed
    assert result.confidence == 0.5
    assert result.by_class.tolist() == [[1, 1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1, 0]]
    assert result.by_size.tolist() == [[1, 0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert result.by_level.tolist() == [[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 1, 0]]
    assert result.outcomes.tolist() == result.by_class.sum(axis=0).tolist()


def test_detections_below_the_best_confidence_are_counted_in_the_whole_alone():
    data = data_of([record([SMALL, MEDIUM], [0, 0])], "a")
    result = diagnosis_of(data, found([SMALL, [100, 100, 120, 120], MEDIUM], [0.9, 0.3, 0.2], [0, 0, 0]))
    assert result.confidence == pytest.approx(0.2)  # F1 is 4/5 with all, 2/3 with the first
    fewer = diagnosis_of(data, found([SMALL, *[[100, 100, 120, 120]] * 3, MEDIUM], [0.9, 0.3, 0.3, 0.3, 0.2], [0] * 5))
    assert fewer.confidence == pytest.approx(0.9)
    assert fewer.outcomes.tolist() == [2, 0, 0, 0, 0, 3, 0]
    assert fewer.by_class.tolist() == [[1, 0, 0, 0, 0, 0, 1]]  # the second object is missed from there on


def test_one_level_or_none_that_is_known_has_no_table():
    data = data_of([record([SMALL], [0])], "a")
    assert diagnosis_of(data, found([SMALL], [0.5], [0])).by_level.shape == (0, 7)
    evaluator = CocoEvaluator(data)
    evaluator.merge(np.array([[0, *SMALL, 0.5, 0, -1]]))
    assert diagnose(evaluator).by_level.shape == (0, 7)


def test_f1_is_that_of_the_detections_from_each_confidence_on():
    data, detections = random_case(3)
    result = diagnosis_of(data, *detections)
    evaluator = CocoEvaluator(data)
    evaluator.update(range(len(detections)), detections)
    whole = evaluator.compute()
    for curve, at, point, each in zip(result.f1, result.f1_at_confidence[:-1], whole.classes, range(4), strict=False):
        if not point.num_objects:
            assert np.isnan(curve).all()
            continue
        # scores are tenths, and so is where F1 is best: the curve has its highest value there
        assert curve.max() == pytest.approx(point.best.f1), each
        assert at <= curve.max() + 1e-12
    assert result.f1_of_all.max() == pytest.approx(whole.best.f1)
    assert result.f1_at_confidence[-1] == pytest.approx(whole.best.f1)
    assert result.confidence == whole.best.confidence
    scores, is_right = np.array([0.9, 0.55, 0.2]), np.array([True, False, True])
    by_hand = diagnosis_of(
        data_of([record([SMALL, MEDIUM, LARGE], [0, 0, 0])], "a"),
        found([SMALL, [100, 0, 120, 20], LARGE], scores, [0, 0, 0]),
    )
    at = dict(zip(np.round(CONFIDENCES, 2).tolist(), by_hand.f1_of_all.tolist(), strict=True))
    assert (at[0.0], at[0.21], at[0.56], at[0.95]) == pytest.approx((4 / 6, 2 / 5, 2 / 4, 0))
    assert find_best_confidence(scores, is_right, 3).f1 == pytest.approx(at[0.0])


def test_scores_are_compared_with_the_share_that_is_right():
    objects = [[20 * k, 0, 20 * k + 15, 15] for k in range(4)]
    nothing = [[20 * k, 100, 20 * k + 15, 115] for k in range(4)]
    boxes = [*objects, *nothing]
    scores = [0.95, 0.95, 0.95, 0.15, 0.95, 0.15, 0.15, 0.05]
    calibration = diagnosis_of(data_of([record(objects, [0] * 4)], "a"), found(boxes, scores, [0] * 8)).calibration
    assert calibration.counts.tolist() == [1, 3, 0, 0, 0, 0, 0, 0, 0, 4]
    np.testing.assert_allclose(calibration.precisions[[0, 1, 9]], [0, 1 / 3, 3 / 4])
    np.testing.assert_allclose(calibration.scores[[0, 1, 9]], [0.05, 0.15, 0.95], rtol=1e-6)
    # (1 * 0.05 + 3 * |0.15 - 1/3| + 4 * |0.95 - 3/4|) / 8
    assert calibration.error() == pytest.approx((0.05 + 0.55 + 0.8) / 8, rel=1e-6)
    assert calibration.error(1) == pytest.approx((0.55 + 0.8) / 7, rel=1e-6)


def test_a_score_of_one_is_in_the_last_range():
    calibration = diagnosis_of(data_of([record([SMALL], [0])], "a"), found([SMALL], [1.0], [0])).calibration
    assert calibration.counts.tolist() == [0] * 9 + [1]
    assert calibration.error() == 0


def test_the_advice_names_the_kind_that_brings_most_and_the_next():
    missed = diagnosis_of(data_of([record([SMALL, MEDIUM], [0, 0])], "a"), found([SMALL], [0.9], [0]))
    assert missed.advice() == "Mending objects that are missed would bring most: AP from 0.505 to 1.000 (+0.495)."
    both = diagnosis_of(
        data_of([record([SMALL, MEDIUM, LARGE], [0, 0, 0])], "a"),
        found([[100, 0, 120, 20], SMALL, [30, 0, 80, 20]], [0.9, 0.8, 0.7], [0, 0, 0]),
    )
    assert [kind for kind, _ in both.ranked_gains()] == ["localisation", "background", "missed"]
    assert "; the next is background, with +" in both.advice()


def test_it_is_plain_values_with_null_for_what_is_undefined():
    plain = diagnosis_of(data_of([record([SMALL], [0])], "ab"), found([SMALL], [0.9], [0])).to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text)["f1"][1] == [None] * 101
    assert plain["calibration"]["scores"][:2] == [None, None]
    assert plain["gains_ap50"] == dict.fromkeys(
        ("classification", "localisation", "both", "duplicate", "background", "missed"), 0.0
    )
