"""The picture of fusion weights: axes, titles, scales, boxes and pixels."""

from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from pyrafuse.base.detections import Detections
from pyrafuse.core.detections import no_detections
from pyrafuse.visualization.figures import LEVEL_COLORS, encode_figure
from pyrafuse.visualization.fusion import MapRow, plot_fusion, plot_weights


def detections_on(levels, box=(10, 20, 40, 60)):
    n = len(levels)
    return Detections(
        torch.tensor([box] * n, dtype=torch.float32).reshape(-1, 4), torch.ones(n), torch.zeros(n).long(),
        torch.tensor(levels, dtype=torch.int64),
    )  # fmt: skip


def uniform_weights(num_levels, size=16):
    return [np.full((num_levels, size >> level, size >> level), 1 / num_levels) for level in range(num_levels)]


def rows_of(weights, fused, strides):
    titles = [f"from stride {s}" for s in strides]
    return [MapRow(f"stride {s}", titles[: len(w)], s, w, f) for s, w, f in zip(strides, weights, fused, strict=True)]


GREY = np.full((80, 120, 3), 128, np.uint8)


def titles_of(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


@pytest.mark.parametrize("num_levels", [2, 3, 5])
def test_one_row_an_output_level_one_column_a_source(num_levels):
    strides = tuple(8 << level for level in range(num_levels))
    weights = uniform_weights(num_levels)
    fused = [w[0] for w in weights]
    figure = plot_fusion(GREY, no_detections(), rows_of(weights, fused, strides), strides)
    assert len(figure.axes) == 1 + num_levels * (num_levels + 1) + 1  # the image, the maps, the colour bar
    sources = [t for t in titles_of(figure) if t.startswith("from")]
    expected = [f"from stride {s}, mean {1 / num_levels:.2f}" for s in strides]
    assert sources == expected * num_levels
    assert [t for t in titles_of(figure) if t.startswith("fused")] == [
        f"fused at stride {s}, own scale" for s in strides
    ]
    assert [text.get_text() for text in figure.texts] == [f"stride {s}" for s in strides]


def test_weights_share_one_scale_and_fused_maps_have_their_own():
    weights = [np.stack([np.full((4, 4), 0.25), np.full((4, 4), 0.75)])] * 2
    fused = [np.asarray([[3.0, 7.0]]), np.asarray([[-1.0, 1.0]])]
    figure = plot_fusion(GREY, no_detections(), rows_of(weights, fused, (8, 16)), (8, 16))
    maps = {axes.get_title(): axes.images[-1] for axes in figure.axes if len(axes.images) == 2}
    assert maps["from stride 8, mean 0.25"].get_clim() == (0, 1)
    np.testing.assert_array_equal(maps["from stride 16, mean 0.75"].get_array(), np.full((4, 4), 0.75))
    assert maps["from stride 8, mean 0.25"].get_extent() == [-0.5, 119.5, 79.5, -0.5]
    assert maps["fused at stride 8, own scale"].get_clim() == (3, 7)
    assert maps["fused at stride 16, own scale"].get_clim() == (-1, 1)


def test_boxes_have_the_colour_of_their_level_and_are_counted():
    figure = plot_fusion(GREY, detections_on([0, 2, 2]), (), (8, 16, 32))
    (axes,) = figure.axes
    assert axes.get_title() == "3 detections"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "stride 8: 1",
        "stride 16: 0",
        "stride 32: 2",
    ]
    fine, middle, coarse = axes.collections
    assert [len(c.get_paths()) for c in (fine, middle, coarse)] == [1, 0, 2]
    assert [to_hex(c.get_edgecolor()[0]) for c in (fine, coarse)] == [LEVEL_COLORS[0], LEVEL_COLORS[2]]
    np.testing.assert_array_equal(fine.get_paths()[0].vertices[:4], [[10, 20], [40, 20], [40, 60], [10, 60]])


@pytest.mark.parametrize(
    ("count", "title", "bars"),
    [
        (13, "13 detections, the best 12 numbered", "share of each source level in the score, the best 12 of 13"),
        (12, "12 detections", "share of each source level in the score"),
    ],
)
def test_says_that_only_the_best_have_bars(count, title, bars):
    figure = plot_fusion(
        GREY, detections_on([0] * count), (), (8, 16), attributions=np.full((count, 2), 0.5),
        attribution_strides=(8, 16),
    )  # fmt: skip
    top, side = figure.axes
    assert (top.get_title(), side.get_title(loc="right")) == (title, bars)
    assert len(side.get_yticks()) == len(top.texts) == 12
    encode_figure(figure, dpi=50)
    assert side._right_title.get_window_extent().x0 > top.title.get_window_extent().x1


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (80, 120), (3000, 200)])
@pytest.mark.parametrize("shift", [0.0, 0.01, 0.08])
def test_no_number_lies_on_another(height, width, shift):
    first = torch.tensor([0.3, 0.02, 0.6, 0.4])
    boxes = (first + shift * torch.arange(12)[:, None]) * torch.tensor([width, height, width, height])
    found = Detections(boxes, torch.ones(12), torch.zeros(12).long(), torch.arange(12) % 2)
    figure = plot_fusion(
        np.zeros((height, width, 3), np.uint8), found, (), (8, 16),
        attributions=np.full((12, 2), 0.5), attribution_strides=(8, 16),
    )  # fmt: skip
    encode_figure(figure, dpi=100)
    top = figure.axes[0]
    assert [text.get_text() for text in top.texts] == [f"{rank}" for rank in range(1, 13)]
    plates = [patch.get_window_extent() for patch in top.patches]
    assert [to_hex(patch.get_facecolor()) for patch in top.patches] == [LEVEL_COLORS[rank % 2] for rank in range(12)]
    for i, (plate, text) in enumerate(zip(plates, top.texts, strict=True)):
        letters = text.get_window_extent()
        assert plate.x0 - 1 < letters.x0 < letters.x1 < plate.x1 + 1
        assert top.bbox.x0 - 1 < plate.x0 < plate.x1 < top.bbox.x1 + 1
        assert top.bbox.y0 - 1 < plate.y0 < plate.y1 < top.bbox.y1 + 1
        for other in plates[:i]:
            across = min(plate.x1, other.x1) - max(plate.x0, other.x0)
            down = min(plate.y1, other.y1) - max(plate.y0, other.y0)
            assert min(across, down) < 0.01


def test_high_weights_are_red_and_low_ones_blue():
    high = np.zeros((8, 8))
    high[:, 4:] = 1
    figure = plot_fusion(GREY, no_detections(), rows_of([np.stack([high, 1 - high])] * 2, [high] * 2, (8, 16)), (8, 16))
    with Image.open(BytesIO(encode_figure(figure, dpi=50))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    axes = next(a for a in figure.axes if a.get_title() == "from stride 8, mean 0.50")
    left, bottom, right, top = axes.get_position().extents
    row = int((1 - (bottom + top) / 2) * pixels.shape[0])
    low, high = (pixels[row, int((left + (right - left) * at) * pixels.shape[1])] for at in (0.1, 0.9))
    assert low[2] > low[0] + 40
    assert high[0] > high[2] + 40


def test_nothing_overlaps_and_nothing_leaves_the_page():
    weights = uniform_weights(3)
    for image in (GREY, GREY.transpose(1, 0, 2), GREY[:10]):
        figure = plot_fusion(
            image, detections_on([0] * 500), rows_of(weights, [w[0] for w in weights], (8, 16, 32)), (8, 16, 32)
        )
        encode_figure(figure, dpi=40)
        boxes = [axes.get_position() for axes in figure.axes]
        assert min(b.x0 for b in boxes) >= 0
        assert min(b.y0 for b in boxes) >= 0
        assert max(b.x1 for b in boxes) <= 1
        assert max(b.y1 for b in boxes) <= 1
        for i, a in enumerate(boxes):
            assert not any(a.overlaps(b) for b in boxes[i + 1 :])


def test_rows_may_have_other_sources_than_levels():
    rows = [
        MapRow("P4", ["from C4", "from C5"], 16, np.full((2, 4, 4), 0.5), np.eye(4)),
        MapRow("P5", ["from C3"], 32, np.full((1, 2, 2), 1.0), np.eye(2), is_output=True),
    ]
    figure = plot_fusion(GREY, no_detections(), rows, (8, 16, 32))
    assert titles_of(figure)[1:] == [
        "from C4, mean 0.50", "from C5, mean 0.50", "fused at P4, own scale", "from C3, mean 1.00",
        "output of P5, own scale",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.texts] == ["P4", "P5"]


def test_bars_of_weights():
    figure = plot_weights({"P4": {"C4": 0.25, "C5": 0.75}, "P5": {"C5": 0.05, "P4": 0.9}})
    (axes,) = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 0.25), (0.25, 0.75), (0, 0.05), (0.05, 0.9)]
    assert [text.get_text() for text in axes.texts] == ["C4 0.25", "C5 0.75", "P4 0.90"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["P4", "P5"]
    encode_figure(figure, dpi=40)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"weights must be \(2 sources, h, w\), got shape \(3, 4, 4\)"):
        MapRow("P4", ["a", "b"], 16, np.zeros((3, 4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"fused maps must be \(h, w\), got shape \(1, 4, 4\)"):
        MapRow("P4", ["a"], 16, np.zeros((1, 4, 4)), np.zeros((1, 4, 4)))
