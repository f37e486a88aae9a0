"""Means, spreads and verdicts, worked by hand."""

import math

import pytest

from pyrafuse.experiments.statistics import compare_by_seed, student_95, summarize

NAN = math.nan


def test_mean_and_deviation():
    spread = summarize([0.4, 0.5, 0.6])
    assert (spread.mean, spread.deviation, spread.count) == (pytest.approx(0.5), pytest.approx(0.1), 3)


def test_undefined_values_are_left_out():
    spread = summarize([0.4, NAN, 0.6])
    assert (spread.mean, spread.deviation, spread.count) == (pytest.approx(0.5), pytest.approx(math.sqrt(0.02)), 2)
    one = summarize([NAN, 0.3])
    assert one.mean == 0.3
    assert math.isnan(one.deviation)
    none = summarize([])
    assert math.isnan(none.mean)
    assert none.count == 0


@pytest.mark.parametrize(("degrees", "point"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042), (1000, 2.042)])
def test_student(degrees, point):
    assert student_95(degrees) == point


def test_student_needs_a_degree():
    with pytest.raises(ValueError, match="needs a degree of freedom, got 0"):
        student_95(0)


def test_a_difference_is_paired_by_seed():
    values = {"a": {0: 0.52, 1: 0.63, 2: 0.71}, "b": {0: 0.50, 1: 0.60, 2: 0.70, 7: 0.1}}
    found = compare_by_seed("a", "b", values)  # differences 0.02, 0.03, 0.01: mean 0.02, deviation 0.01
    assert found.mean == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(0.01 / math.sqrt(3))
    assert found.count == 3
    assert found.half_width == pytest.approx(4.303 * 0.01 / math.sqrt(3))  # 0.0248
    assert found.is_within_spread is True
    assert found.verdict() == "within the spread"


def test_seeds_that_agree_tell_a_small_difference():
    """The spread over seeds is 0.1, twenty times the difference: pairing takes it out."""
    values = {"a": {0: 0.405, 1: 0.506, 2: 0.604}, "b": {0: 0.4, 1: 0.5, 2: 0.6}}
    found = compare_by_seed("a", "b", values)  # 0.005, 0.006, 0.004: half width 4.303 * 0.001 / 1.732 = 0.0025
    assert found.is_within_spread is False
    assert found.verdict() == "beyond the spread"
    assert compare_by_seed("b", "a", values).mean == pytest.approx(-found.mean)
    assert compare_by_seed("b", "a", values).is_within_spread is False


def test_equal_runs_do_not_differ():
    found = compare_by_seed("a", "b", {"a": {0: 0.5, 1: 0.5}, "b": {0: 0.5, 1: 0.5}})
    assert found.is_within_spread is True


def test_one_seed_says_nothing():
    found = compare_by_seed("a", "b", {"a": {0: 0.9}, "b": {0: 0.1, 1: 0.2}})
    assert found.mean == pytest.approx(0.8)
    assert math.isnan(found.standard_error)
    assert math.isnan(found.half_width)
    assert found.is_within_spread is None
    assert found.verdict() == "unknown: a spread takes two seeds"
    assert compare_by_seed("a", "b", {"a": {0: 0.9}, "b": {}}).verdict() == "unknown: no seed in common"


@pytest.mark.parametrize(
    ("first", "second", "unlearnt", "verdict"),
    [
        ({0: 0.0, 1: 0.0099}, {0: 0.001, 1: NAN}, ("a", "b"), "none: neither learnt anything"),
        ({0: 0.0, 1: 0.004}, {0: 0.30, 1: 0.31}, ("a",), "beyond the spread; a learnt nothing"),
        ({0: 0.0, 1: 0.30}, {0: 0.002, 1: 0.001}, ("b",), "within the spread; b learnt nothing"),
        ({0: 0.0}, {0: 0.3}, ("a",), "unknown: a spread takes two seeds; a learnt nothing"),
        ({0: 0.0}, {0: 0.0}, ("a", "b"), "none: neither learnt anything"),
        ({0: 0.01, 1: 0.0}, {0: 0.01, 1: 0.0}, (), "within the spread"),
        ({0: NAN}, {0: NAN}, (), "unknown: no seed in common"),
    ],
)
def test_variants_that_learnt_nothing_are_not_ranked(first, second, unlearnt, verdict):
    found = compare_by_seed("a", "b", {"a": first, "b": second})
    assert (found.unlearnt, found.verdict()) == (unlearnt, verdict)
