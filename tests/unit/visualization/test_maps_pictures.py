"""Pictures of gradients and of Grad-CAM, and the bars of attributions: what stands where, and what is refused."""

import numpy as np
import pytest
import torch

from pyrafuse.base.detections import Detections
from pyrafuse.core.detections import no_detections
from pyrafuse.visualization.cam import plot_cams
from pyrafuse.visualization.fusion import MAX_BARS, plot_fusion
from pyrafuse.visualization.gradients import plot_gradients

GREY = np.full((80, 120, 3), 128, np.uint8)


def detections_of(count):
    boxes = torch.tensor([[10.0, 20.0, 40.0, 60.0]]).repeat(count, 1)
    return Detections(
        boxes, torch.linspace(1, 0.5, count), torch.arange(count) % 2, torch.zeros(count).long(), ("a", "$")
    )


def maps_of(figure):
    return {axes.get_title(): axes.images[-1].get_array() for axes in figure.axes if len(axes.images) == 2}


def test_gradients_are_drawn_by_decades_below_the_strongest_of_the_row():
    norms = [np.asarray([[[1.0, 0.1]], [[1e-3, 0.0]]]), np.asarray([[[5.0]], [[0.5]]])]
    conflicts = [np.asarray([[True, False]]), np.asarray([[False]])]
    figure = plot_gradients(GREY, np.asarray([[1, 2, 30, 40]]), norms, conflicts, (8, 16), (8, 32))
    fine = [axes for axes in figure.axes if len(axes.images) == 2][:3]
    assert [axes.get_title() for axes in fine] == [
        "from output of stride 8", "from output of stride 32", "in conflict: 50.0 %",
    ]  # fmt: skip
    np.testing.assert_allclose(fine[0].images[-1].get_array(), [[0, -1]], atol=1e-6)
    np.testing.assert_allclose(fine[1].images[-1].get_array(), [[-3, -4]], atol=1e-6)
    np.testing.assert_array_equal(fine[2].images[-1].get_array(), [[1, 0]])
    np.testing.assert_array_equal(
        fine[2].collections[0].get_paths()[0].vertices[:4], [[1, 2], [30, 2], [30, 40], [1, 40]]
    )
    assert [text.get_text() for text in figure.texts] == ["stride 8", "stride 16"]


def test_no_gradient_at_all_is_drawn_as_none():
    figure = plot_gradients(
        GREY, np.zeros((0, 4)), [np.zeros((1, 2, 2))], [np.zeros((2, 2), bool)], (8,), (8,)
    )  # fmt: skip
    np.testing.assert_array_equal(maps_of(figure)["from output of stride 8"], np.full((2, 2), -4))


def test_gradients_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="norms of 1 and conflicts of 0 source levels, but 1 strides"):
        plot_gradients(GREY, np.zeros((0, 4)), [np.zeros((1, 2, 2))], [], (8,), (8,))
    with pytest.raises(ValueError, match=r"got shape \(2, 2, 2\)"):
        plot_gradients(GREY, np.zeros((0, 4)), [np.zeros((2, 2, 2))], [np.zeros((2, 2), bool)], (8,), (8,))


def test_class_and_box_stand_side_by_side():
    found = detections_of(2)
    classification, regression = [np.eye(2), np.ones((2, 2))], [np.zeros((2, 2)), 1 - np.eye(2)]
    figure = plot_cams(GREY, found, classification, regression, (8, 16))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["1 a 1.00, stride 8", "class", "box", r"2 \$ 0.50, stride 8", "class", "box"]
    drawn = [axes.images[-1].get_array() for axes in figure.axes if len(axes.images) == 2]
    for got, expected in zip(drawn, (np.eye(2), np.zeros((2, 2)), np.ones((2, 2)), 1 - np.eye(2)), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="2 detections, 1 maps of classification and 2 of regression"):
        plot_cams(GREY, found, classification[:1], regression, (8, 16))
    with pytest.raises(ValueError, match="one at least"):
        plot_cams(GREY, no_detections(), [], [], (8, 16))


def test_attributions_are_bars_that_add_up():
    attributions = np.asarray([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    figure = plot_fusion(GREY, detections_of(2), (), (8, 16), attributions=attributions, attribution_strides=(4, 8, 16))
    top, bars = figure.axes
    assert [label.get_text() for label in bars.get_yticklabels()] == ["1 a 1.00", r"2 \$ 0.50"]
    lengths = [[patch.get_width() for patch in container] for container in bars.containers]
    np.testing.assert_allclose(np.transpose(lengths), attributions)
    begins = [container[0].get_x() for container in bars.containers]
    np.testing.assert_allclose(begins, (0, 0.5, 0.75))
    assert [text.get_text() for text in top.texts] == ["1", "2"]


def test_of_many_detections_the_best_have_bars():
    shares = np.full((30, 1), 1.0)
    figure = plot_fusion(
        GREY, detections_of(30), (), (8,), attributions=shares, attribution_strides=(8,)
    )  # fmt: skip
    assert len(figure.axes[1].get_yticklabels()) == MAX_BARS
    with pytest.raises(ValueError, match=r"attributions must be \(30 detections, 2 levels\), got shape \(30, 1\)"):
        plot_fusion(GREY, detections_of(30), (), (8,), attributions=shares, attribution_strides=(8, 16))
