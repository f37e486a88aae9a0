"""What a search begins with: necks made by hand as points of its space."""

from pyrafuse.base.terminal import Terminal
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import Space
from pyrafuse.search.points import POINTS
from pyrafuse.search.searching import BY_HAND, find_by_hand

INPUTS = PyramidSpec((64, 128, 256), (8, 16, 32))


def test_necks_made_by_hand_are_points_of_the_space():
    found = find_by_hand(Space(channels=(64, 32)), INPUTS, Terminal(quiet=True))
    assert tuple(found) == BY_HAND
    for name, candidate in found.items():
        graph = POINTS[name](INPUTS, 32, None)
        assert fingerprint(candidate.graph, INPUTS) == fingerprint(graph, INPUTS)


def test_those_outside_of_the_space_and_those_that_are_one_are_told(monkeypatch, capsys):
    monkeypatch.setitem(POINTS, "pafpn", POINTS["fpn"])
    found = find_by_hand(Space(channels=(32,), fusions=("sum", "fast_normalized")), INPUTS, Terminal())
    assert tuple(found) == ("fpn", "bifpn")
    said = capsys.readouterr().err
    assert "pafpn is not tried, because it is the same graph as fpn here" in said
    assert "nas_fpn is not tried, because it is not in the space: " in said
    assert "asff is not tried, because it is not in the space: " in said
