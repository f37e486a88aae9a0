"""Plain values become what a type says, or an error that names the place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.typed_values import create, read_text, read_value, read_yaml_file


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e-3", float, 0.001),
        (2, float, 2.0),
        ("0,1", int | tuple[int, ...] | Literal["auto"], (0, 1)),
        ("2", int | tuple[int, ...] | Literal["auto"], 2),
        ("auto", int | tuple[int, ...] | Literal["auto"], "auto"),
        ("[1, 2]", tuple[float, float], (1.0, 2.0)),
        (32, Literal["auto", "32"], "32"),
        ("a", Path | None, Path("a")),
        (["a"], Sequence[str], ("a",)),
        ("{a: [1]}", dict[str, Any], {"a": [1]}),
        ("No", bool, False),
    ],
)
def test_a_value_that_fits(value, kind, expected):
    found = read_value(value, kind, "x")
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, int, "x: expected int, got True"),
        (1.5, int, "x: expected int, got 1.5"),
        ("nan", float, "x: expected float, got 'nan'"),
        (None, int, "x: expected int, got null"),
        (5, str, "x: expected str, got 5; put it in quotes"),
        ("1,2,3", tuple[int, int], "x: expected tuple[int, int], got ['1', '2', '3']"),
        ("{a", dict[str, Any], "x {a: the value is no YAML; put text with signs in quotes"),
    ],
)
def test_a_value_that_does_not_fit(value, kind, message):
    with pytest.raises(PyrafuseError) as raised:
        read_value(value, kind, "x")
    assert str(raised.value) == message


def test_null_is_none_only_as_typed_and_where_the_type_has_it():
    assert read_text("null", str | None, "x") is None
    assert read_text("null", str, "x") == "null"
    assert read_value("null", str | None, "x") == "null"


def test_a_key_that_stands_twice_is_named_by_file_and_line(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(PyrafuseError, match=r"--recipe \S+a\.yaml: line 2: there are two of a; rename one"):
        read_yaml_file(tmp_path / "a.yaml", option="--recipe")


@dataclass
class Inner:
    number: int
    names: list[str] = field(default_factory=list)


@dataclass
class Outer:
    inner: Inner
    ratio: float = 0.5


def test_a_field_that_is_missing_is_named_with_its_place():
    assert create(Outer, {"inner": {"number": 1}}) == Outer(Inner(1))
    for values, message in (({"inner": {"names": []}}, "file.inner.number is missing"), ({}, "file.inner is missing")):
        with pytest.raises(PyrafuseError) as raised:
            create(Outer, values, "file")
        assert str(raised.value) == message
