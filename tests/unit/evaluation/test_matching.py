"""Greedy matching, worked by hand."""

import math

import numpy as np
import pytest

from pyrafuse.evaluation import matching
from pyrafuse.evaluation.matching import IN_CROWD, MISSED, find_best_confidence, match_greedily


def match(found_boxes, scores, true_boxes, crowd=None, found_groups=None, true_groups=None):
    n, m = len(found_boxes), len(true_boxes)
    return match_greedily(
        np.zeros(n, np.int64) if found_groups is None else np.asarray(found_groups),
        np.asarray(found_boxes, np.float64).reshape(-1, 4),
        np.asarray(scores, np.float64),
        np.zeros(m, np.int64) if true_groups is None else np.asarray(true_groups),
        np.asarray(true_boxes, np.float64).reshape(-1, 4),
        np.zeros(m, bool) if crowd is None else np.asarray(crowd),
    ).tolist()


def test_the_surer_detection_takes_the_object_and_the_other_is_a_miss():
    assert match([[0, 0, 10, 10], [0, 0, 10, 9]], [0.5, 0.6], [[0, 0, 10, 10]]) == [MISSED, 0]


def test_the_best_overlap_is_taken_and_the_next_best_when_it_is_gone():
    true = [[0, 0, 10, 10], [0, 2, 10, 12]]
    # overlaps of (0, 1, 10, 11) with both are 9/11; the first guess overlaps object 0 fully
    assert match([[0, 0, 10, 10], [0, 0.5, 10, 10.5]], [0.9, 0.8], true) == [0, 1]


def test_of_equal_overlaps_the_later_object_is_taken_as_pycocotools_does():
    assert match([[0, 1, 10, 11]], [0.9], [[0, 0, 10, 10], [0, 2, 10, 12]]) == [1]


def test_of_equal_scores_the_earlier_detection_is_first():
    assert match([[0, 0, 10, 10]] * 3, [0.5] * 3, [[0, 0, 10, 10]]) == [0, MISSED, MISSED]


def test_exactly_half_is_enough_and_less_is_not():
    assert match([[0, 0, 10, 5], [0, 0, 10, 4.9]], [0.9, 0.8], [[0, 0, 10, 10]]) == [0, MISSED]


def test_a_crowd_takes_any_number_by_the_share_of_the_detection():
    true, crowd = [[0, 0, 100, 100], [0, 0, 10, 10]], [True, False]
    guesses = [[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [95, 0, 106, 10]]
    assert match(guesses, [0.9, 0.8, 0.7, 0.6], true, crowd) == [1, IN_CROWD, IN_CROWD, MISSED]


def test_groups_never_meet():
    box = [0, 0, 10, 10]
    assert match([box, box], [0.9, 0.8], [box, box], found_groups=[5, 7], true_groups=[7, 6]) == [MISSED, 0]


def test_boxes_without_area_match_nothing():
    assert match([[5, 5, 5, 5]], [0.9], [[5, 5, 5, 5]]) == [MISSED]


def test_nothing_found_or_nothing_there():
    assert match([], [], [[0, 0, 1, 1]]) == []
    assert match([[0, 0, 1, 1]], [0.5], []) == [MISSED]


def test_blocks_of_pairs_do_not_change_the_matches(monkeypatch):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (40, 2))
    true = np.concatenate([corners, corners + rng.uniform(20, 40, (40, 2))], 1)
    near = rng.integers(0, 40, 60)
    guesses, groups = true[near] + rng.normal(0, 2, (60, 4)), rng.integers(0, 4, 40)
    arguments = (guesses, rng.uniform(size=60), true, None, groups[near], groups)
    whole = match(*arguments)
    assert sum(m >= 0 for m in whole) > 10
    monkeypatch.setattr(matching, "_PAIRS_AT_ONCE", 3)
    assert match(*arguments) == whole


def test_best_confidence_by_hand():
    scores = np.asarray([0.9, 0.3, 0.6, 0.6])
    is_right = np.asarray([True, True, True, False])
    # F1 of three objects: 0.9 alone 2/4; with both 0.6 4/6; with all 6/7
    best = find_best_confidence(scores, is_right, 3)
    assert (best.confidence, best.precision, best.recall, best.f1) == pytest.approx((0.3, 3 / 4, 1, 6 / 7))
    # of ten objects: 2/11, 4/13, 6/14
    assert find_best_confidence(scores, is_right, 10).f1 == pytest.approx(6 / 14)


def test_no_confidence_is_best_where_nothing_is_right():
    for right, objects in (([False], 3), ([False], 0)):
        point = find_best_confidence(np.asarray([0.5]), np.asarray(right), objects)
        assert all(math.isnan(v) for v in vars(point).values())
