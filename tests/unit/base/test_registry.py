"""Names: taken once, found nearly right."""

from functools import partial

import pytest

from pyrafuse.base.errors import UnknownNameError, unknown_name
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
