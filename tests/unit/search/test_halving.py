"""Successive halving: who goes on."""

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.search.halving import check_rungs, promote


@pytest.mark.parametrize(
    ("scores", "eta", "expected"),
    [
        ({"a": 3.0, "b": 1.0, "c": 2.0, "d": 5.0, "e": 4.0, "f": 6.0}, 3, ("b", "c")),
        ({"a": 3.0, "b": 1.0, "c": 2.0, "d": 5.0, "e": 4.0}, 2, ("b", "c")),
        ({"b": 1.0, "a": 1.0, "c": 0.5, "d": 1.0}, 2, ("c", "a")),
        ({"a": 1.0, "b": 2.0}, 3, ("a",)),
        ({"a": 1.0}, 3, ("a",)),
        ({}, 3, ()),
    ],
)
def test_one_of_eta_goes_on_and_at_least_one(scores, eta, expected):
    assert promote(scores, eta) == expected


@pytest.mark.parametrize("rungs", [(), (0, 3), (3, 3), (5, 4), (-1,)])
def test_rungs_grow(rungs):
    with pytest.raises(PyrafuseError, match="growing numbers of steps"):
        check_rungs(rungs, 2)


@pytest.mark.parametrize("eta", [1, 0, 2.5, True])
def test_halving_halves(eta):
    with pytest.raises(PyrafuseError, match="eta must be a whole number, 2 or more"):
        check_rungs((1,), eta)
