"""Parts as plain values: what they are read from, written to and changed by."""

import json
from pathlib import Path

import pytest
import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import Part, edit, part, plain, read_part, to_plain

NESTED = part("dense", assigner=part("max_iou", positive_iou=0.5), weights=(1.0, (2, None)), table={"a": [True, "x"]})


def test_lists_become_tuples_and_mappings_with_a_name_parts():
    got = part("a", row=[1, [2.5, None]], file=Path("x/y"), inner={"name": "b", "c": [3]}, table={"d": [4]})
    assert got.options == {
        "row": (1, (2.5, None)),
        "file": "x/y",
        "inner": Part("b", {"c": (3,)}),
        "table": {"d": (4,)},
    }


@pytest.mark.parametrize("write", [lambda value: json.loads(json.dumps(value)), lambda v: yaml.safe_load(yaml.dump(v))])
def test_files_give_an_equal_part(write):
    assert read_part(write(NESTED.to_plain())) == NESTED


def test_plain_values_hold_the_name_first():
    assert NESTED.to_plain() == {
        "name": "dense",
        "assigner": {"name": "max_iou", "positive_iou": 0.5},
        "weights": [1.0, [2, None]],
        "table": {"a": [True, "x"]},
    }
    assert next(iter(NESTED.to_plain())) == "name"
    assert to_plain(plain([1, (2,)])) == [1, [2]]


@pytest.mark.parametrize("value", [object(), b"text", {1, 2}, 1j, [object()], {"a": {2}}])
def test_what_is_no_option(value):
    with pytest.raises(PyrafuseError, match=r"^an option is a number, a text, a list or a mapping of these, not "):
        part("a", b=value)


@pytest.mark.parametrize("given", [None, 3, {}, {"nam": "a"}, {"name": 3}, ["a"]])
def test_what_is_no_part(given):
    with pytest.raises(PyrafuseError, match=r"^a part is a name, or a mapping of its name and options, not "):
        read_part(given)


@pytest.mark.parametrize(("name", "options"), [(3, {}), ("a", [1]), ("a", {"name": "b"})])
def test_what_no_part_is_made_of(name, options):
    with pytest.raises(PyrafuseError, match=r"^a part is a name and options, got "):
        Part(name, options)


def test_a_part_does_not_follow_what_it_was_made_of():
    row, options = [1, 2], {}
    options["a"] = row
    made = Part("b", options)
    row.append(3)
    options["c"] = 4
    assert made == part("b", a=(1, 2))


class TestEdit:
    def test_options_of_the_part_that_is_there(self):
        before = part("a", x=1, y=2)
        assert edit(before, {"y": 3, "z": [4]}) == part("a", x=1, y=3, z=(4,))
        assert edit(before, {"name": "a", "y": 3}) == part("a", x=1, y=3)
        assert before == part("a", x=1, y=2)

    def test_parts_inside(self):
        got = edit(NESTED, {"assigner": {"negative_iou": 0.4}, "table": {"b": 1}})
        assert got.options["assigner"] == part("max_iou", positive_iou=0.5, negative_iou=0.4)
        assert got.options["table"] == {"a": (True, "x"), "b": 1}
        assert edit(NESTED, {"assigner": "atss"}).options["assigner"] == part("atss")
        assert edit(NESTED, {"assigner": None}).options["assigner"] is None

    @pytest.mark.parametrize("change", ["b", {"name": "b"}, part("b")])
    def test_another_part_keeps_no_option(self, change):
        assert edit(part("a", x=1), change) == part("b")

    def test_another_part_of_the_same_name_is_that_part(self):
        assert edit(part("a", x=1), part("a", y=2)) == part("a", y=2)

    def test_presets_are_of_other_parts_only(self):
        presets = {"a": {"x": 7}, "b": {"x": 7, "y": 8}}
        assert edit(part("a", x=1), {"z": 2}, presets=presets) == part("a", x=1, z=2)
        assert edit(part("a", x=1), {"name": "b", "y": 9}, presets=presets) == part("b", x=7, y=9)
        assert edit(part("a", x=1), "b", presets=presets) == part("b", x=7, y=8)

    @pytest.mark.parametrize("change", [3, [1], True])
    def test_a_part_is_no_number(self, change):
        with pytest.raises(PyrafuseError, match=r"^the part a is changed by a name or a mapping of options, not by "):
            edit(part("a"), change)
