import numpy as np
from matplotlib.patches import FancyArrowPatch

from pyrafuse.visualization.pyramid_graph import ALONG, DOWN, UP, GraphNode, _is_between, place_nodes, plot_graph

NODES = (
    GraphNode("C3", 3),
    GraphNode("C4", 4),
    GraphNode("P3", 3, ("C3", "C4"), "sum", is_output=True),
    GraphNode("T3", 3, ("C3",), "sum"),
    GraphNode("P4", 4, ("P3", "C4"), "concat, 3x3", is_output=True),
)


def test_columns_follow_the_order():
    assert place_nodes(NODES) == {"C3": 0, "C4": 0, "P3": 1, "T3": 2, "P4": 2}


def test_every_input_is_an_arrow_of_its_direction():
    (axes,) = plot_graph(NODES, title="mine").axes
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    colors = [arrow.get_edgecolor() for arrow in arrows]
    from matplotlib.colors import to_rgba

    assert colors == [to_rgba(c) for c in (ALONG, DOWN, ALONG, UP, ALONG)]
    assert axes.get_title(loc="left") == "mine"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["level 3", "level 4"]
    assert {"C3", "C4", "P3", "T3", "P4"} <= {text.get_text() for text in axes.texts}


def test_arrows_lead_around_nodes():
    assert _is_between((0, 0), (1, 1), (2, 2))
    assert not _is_between((0, 0), (1, 0), (2, 2))
    assert not _is_between((0, 0), (2, 2), (2, 2))
    (axes,) = plot_graph(NODES).axes
    bends = [patch.get_connectionstyle().rad for patch in axes.patches]
    # C3 -> T3 leads through P3; all others are straight
    np.testing.assert_allclose(bends, [0, 0, -0.45, 0, 0])


def test_what_goes_out_is_marked():
    figure = plot_graph(NODES)
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [dot.get_markeredgewidth() > 2 for dot in dots] == [False, False, True, False, True]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sum", "concat, 3x3", "goes out"]
