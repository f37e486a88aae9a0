"""What a search begins with: necks made by hand as points of its space."""

from pyrafuse.base.terminal import Terminal
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.by_hand import BY_HAND, find_by_hand, name_by_hand
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import Space
from pyrafuse.search.points import POINTS

INPUTS = PyramidSpec((64, 128, 256), (8, 16, 32))


def test_necks_made_by_hand_are_points_of_the_space_in_all_channels():
    found = find_by_hand(Space(channels=(64, 32)), INPUTS, Terminal(quiet=True))
    assert tuple(found) == tuple(f"{name}-{width}" for width in (32, 64) for name in BY_HAND)
    for name, candidate in found.items():
        made_by = name_by_hand(name)
        graph = POINTS[made_by](INPUTS, int(name.removeprefix(f"{made_by}-")), None)
        assert fingerprint(candidate.graph, INPUTS) == fingerprint(graph, INPUTS)


def test_those_outside_of_the_space_and_those_that_are_one_are_told_once(monkeypatch, capsys):
    monkeypatch.setitem(POINTS, "pafpn", POINTS["fpn"])
    found = find_by_hand(Space(channels=(32, 48), fusions=("sum", "fast_normalized")), INPUTS, Terminal())
    assert tuple(found) == ("fpn-32", "bifpn-32", "fpn-48", "bifpn-48")
    said = capsys.readouterr().err
    assert said.count("pafpn is not tried, because it is the same graph as fpn here") == 1
    assert "nas_fpn is not tried, because it is not in the space: " in said
    assert "asff is not tried, because it is not in the space: " in said


def test_what_was_not_made_by_hand_has_no_name():
    assert [name_by_hand(name) for name in ("nas_fpn-48", "random", "fpn", "evolution-3", "fpn-x")] == [
        "nas_fpn", "", "", "", "",
    ]  # fmt: skip
