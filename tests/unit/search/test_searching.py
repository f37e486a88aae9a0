"""What a search begins with: necks made by hand as points of its space."""

from collections import defaultdict

import pytest
import torch

from pyrafuse.base.terminal import Terminal
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.necks.graph import number_levels
from pyrafuse.necks.graph_neck import GraphNeck
from pyrafuse.search.by_hand import BY_HAND, find_by_hand, find_over_other_levels, name_by_hand
from pyrafuse.search.canonical import fingerprint
from pyrafuse.search.choices import Space
from pyrafuse.search.points import POINTS, create_point

INPUTS = PyramidSpec((64, 128, 256), (8, 16, 32))
MAPS = tuple(zip(INPUTS.channels, INPUTS.strides, strict=True))


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
    assert said.count("pafpn is not tried: it is the same graph as fpn here") == 1
    assert "nas_fpn is not tried: the space does not hold this graph: " in said
    assert "asff is not tried: the space does not hold this graph: " in said


@pytest.mark.parametrize("inputs", [INPUTS, PyramidSpec((32, 64, 128, 256), (4, 8, 16, 32))])
def test_necks_made_by_hand_give_out_every_set_of_levels(inputs, capsys):
    space = Space(channels=(16,))
    own = find_by_hand(space, inputs, Terminal(quiet=True))
    found = find_over_other_levels(space, inputs, own, lambda _: "", Terminal())
    given = defaultdict(set)
    for name, candidate in {**own, **found}.items():
        features = GraphNeck(inputs, candidate.graph).features
        given[name_by_hand(name)].add(number_levels(features.strides))
    everything = set(space.outputs)
    assert given["fpn"] == given["pafpn"] == given["bifpn"] == everything
    assert given["asff"] == everything - {(3, 4, 5, 6, 7)}
    assert "asff over P3 to P7 is not tried: the space does not hold this graph: " in capsys.readouterr().err


def test_a_finer_level_is_the_finest_map_enlarged():
    graph = create_point("fpn", INPUTS, 16, (2, 3, 4, 5))
    neck = GraphNeck(INPUTS, graph)
    sides = [level.shape[-1] for level in neck(tuple(torch.rand(1, c, 64 // s, 64 // s) for c, s in MAPS))]
    assert sides == [16, 8, 4, 2]
    with pytest.raises(ValueError, match="finer than the pixels"):
        create_point("fpn", PyramidSpec((8, 16), (3, 6)), 16, (1, 2, 3))
    with pytest.raises(ValueError, match="P5 is the coarsest"):
        create_point("fpn", INPUTS, 16, (6, 7))


def test_other_levels_take_the_most_channels_that_are_allowed(capsys):
    space = Space(channels=(16, 24), outputs=((2, 3, 4, 5), (3, 4, 5, 6)))

    def find_excess(candidate):
        is_fine = candidate.answers["outputs"] == "P2 P3 P4 P5"
        return f"{candidate.graph.channels} channels" if is_fine and candidate.graph.channels > limit else ""

    limit = 16
    found = find_over_other_levels(space, INPUTS, {}, find_excess, Terminal())
    assert {"fpn-16-p2-p5", "fpn-24-p3-p6"} <= {*found}
    assert not {"fpn-24-p2-p5", "fpn-16-p3-p6"} & {*found}
    limit = 8
    assert "fpn-16-p2-p5" not in find_over_other_levels(space, INPUTS, {}, find_excess, Terminal())
    assert "fpn over P2 to P5 is not tried: 16 channels" in capsys.readouterr().err


def test_what_was_not_made_by_hand_has_no_name():
    names = ("nas_fpn-48", "fpn-48-p2-p5", "random", "fpn", "evolution-3", "fpn-x", "fpn-48-p2")
    assert [name_by_hand(name) for name in names] == ["nas_fpn", "fpn", "", "", "", "", ""]
