"""Names: taken once, found nearly right."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import pytest

from pyrafuse.base.errors import PyrafuseError, UnknownNameError, unknown_name
from pyrafuse.base.parts import Part
from pyrafuse.base.registry import Registry


@pytest.fixture
def parts() -> Registry[dict]:
    registry: Registry[dict] = Registry("part", "pyrafuse.ops")

    @registry.register("plain")
    def plain(**options):
        return options

    registry.add("rich", lambda: {"gold": 1})
    return registry


def test_create(parts):
    assert parts.create("plain", a=1) == {"a": 1}
    assert parts.create("rich") == {"gold": 1}
    assert parts.names() == ("plain", "rich")


def test_nearly_right(parts):
    with pytest.raises(
        UnknownNameError, match=r"^unknown part 'plian'; did you mean 'plain'\? choose from plain, rich$"
    ):
        parts.get("plian")


def test_far_off(parts):
    with pytest.raises(UnknownNameError) as caught:
        parts.get("zzz")
    assert str(caught.value) == "unknown part 'zzz'; choose from plain, rich"


def test_a_word_that_is_only_a_little_alike_is_no_hint(parts):
    with pytest.raises(UnknownNameError, match=r"^unknown part 'plaza'; choose from plain, rich$"):
        parts.get("plaza")


def test_of_very_many_names_the_nearest_are_told():
    error = unknown_name("thing", "thing_007x", [f"thing_{i:03}" for i in range(1000)])
    assert "did you mean 'thing_007'? choose from " in str(error)
    assert str(error).endswith(", ...")
    assert len(str(error)) < 250


def test_taken(parts):
    with pytest.raises(ValueError, match="part 'plain' is registered already, as"):
        parts.add("plain", dict)


def test_papers_are_those_given_or_those_that_the_docstrings_name():
    registry = Registry("thing", "pyrafuse.assigners")

    def documented():
        """A thing (Someone et al., arXiv:1234.56789; after arXiv:1111.11111)."""

    registry.add("documented", documented)
    registry.add("partial", partial(documented))
    registry.add("another", partial(documented), paper="2222.22222")
    registry.add("silent", lambda: None)
    assert registry.paper("documented") == registry.paper("partial") == "1234.56789"
    assert registry.paper("another") == "2222.22222"
    assert registry.paper("silent") == ""


class TestTypes:
    """Options are of the types that the builder's signature names."""

    @pytest.fixture
    def build(self, parts):
        def builder(
            *,
            rate: float = 0.5,
            count: int = 1,
            form: Literal["sum", "concat"] = "sum",
            sides: Sequence[tuple[float, float]] | None = None,
            is_wide: bool = False,
            shape: Callable[[], int] | None = None,
        ) -> tuple:
            return rate, count, form, sides, is_wide, shape

        parts.add("typed", builder)
        return lambda **options: parts.build(Part("typed", options))

    def test_taken(self, build):
        assert build(rate=1, count=3, form="concat", sides=[[1, 2.5]], is_wide=True) == (
            1, 3, "concat", ((1, 2.5),), True, None,
        )  # fmt: skip
        assert build(sides=None, shape="any")[3:] == (None, False, "any")

    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("rate", "0.4", "float, got '0.4'"),
            ("rate", None, "float, got null"),
            ("rate", float("nan"), "float, got nan"),
            ("rate", True, "float, got True"),
            ("count", 2.0, "int, got 2.0"),
            ("count", [2], "int, got (2,)"),
            ("count", False, "int, got False"),
            ("form", "concta", "one of sum, concat (did you mean 'concat'?), got 'concta'"),
            ("form", {"name": "sum"}, "one of sum, concat, got Part(name='sum', options={})"),
            ("sides", [[1, 2, 3]], "Sequence[tuple[float, float]] | null, got ((1, 2, 3),)"),
            ("sides", [1, 2], "Sequence[tuple[float, float]] | null, got (1, 2)"),
            ("is_wide", "no", "bool, got 'no'"),
            ("is_wide", 1, "bool, got 1"),
        ],
    )
    def test_refused(self, build, option, value, expected):
        with pytest.raises(PyrafuseError, match=f"^{re.escape(f'{option} of the part typed: expected {expected}')}$"):
            build(**{option: value})
