"""Names: taken once, found nearly right."""

import pytest

from pyrafuse.core.errors import UnknownNameError
from pyrafuse.core.registry import Registry


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


def test_taken(parts):
    with pytest.raises(ValueError, match="part 'plain' is registered already, as"):
        parts.add("plain", dict)
