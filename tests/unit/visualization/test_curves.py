"""What the curves show: their data, titles, labels and scales."""

import re

import numpy as np
import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.visualization.curves import (
    plot_confusion,
    plot_precision_recall,
    precision_recall_panels,
)
from pyrafuse.visualization.figures import encode_figure
from pyrafuse.visualization.training_curves import plot_training, training_panels

NAN = float("nan")


def labels_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_precision_recall_shows_each_class_and_each_iou():
    precision = np.full((2, 3, 3), NAN)
    precision[0, :, 0], precision[1, :, 0] = [1, 1, 0.4], [1, 0.5, 0]
    precision[0, :, 2], precision[1, :, 2] = [0.6, 0.3, 0], [0, 0, 0]
    figure = plot_precision_recall(precision, ["cat", "absent", "dog"])
    by_class, by_iou = figure.axes
    assert labels_of(by_class) == ["cat  0.800", "dog  0.300", "all classes  0.550"]
    cat, dog, overall = by_class.lines
    np.testing.assert_array_equal(cat.get_xdata(), [0, 0.5, 1])
    np.testing.assert_array_equal(cat.get_ydata(), [1, 1, 0.4])
    np.testing.assert_array_equal(dog.get_ydata(), [0.6, 0.3, 0])
    np.testing.assert_allclose(overall.get_ydata(), [0.8, 0.65, 0.2])
    assert labels_of(by_iou) == ["0.50  0.550", "0.95  0.250"]
    np.testing.assert_allclose(by_iou.lines[1].get_ydata(), [0.5, 0.25, 0])
    assert (by_class.get_xlabel(), by_class.get_ylabel()) == ("recall", "precision")


def test_of_many_classes_the_best_and_the_worst_are_named():
    precision = np.broadcast_to(np.arange(30) / 40, (2, 5, 30))
    by_class = plot_precision_recall(precision, [f"c{k}" for k in range(30)]).axes[0]
    names = [label.split()[0] for label in labels_of(by_class)]
    assert names == ["c29", "c28", "c27", "c26", "c25", "c4", "c3", "c2", "c1", "c0", "all"]
    assert len(by_class.lines) == 31


def test_precision_recall_of_nothing_draws_without_a_warning():
    figure = plot_precision_recall(np.full((10, 101, 2), NAN), ["a", "b"])
    assert not figure.axes[0].lines
    assert encode_figure(figure)[:4] == b"\x89PNG"


def test_names_are_shown_letter_by_letter():
    names = ["$5 and $6", "_hidden", "x^2", "海", "100%\\$"]
    figure = plot_precision_recall(np.ones((2, 3, 5)), names)
    assert len(labels_of(figure.axes[0])) == 6
    assert encode_figure(figure)[:4] == b"\x89PNG"
    confusion = plot_confusion(np.eye(6, dtype=int), names)
    assert encode_figure(confusion)[:4] == b"\x89PNG"
    assert [t.get_text() for t in confusion.axes[0].get_xticklabels()][:2] == [r"\$5 and \$6", " _hidden"]


def test_confusion_colours_by_the_share_of_the_row_and_counts_what_is_there():
    confusion = np.asarray([[6, 2, 0], [0, 0, 0], [1, 3, 0]])
    axes = plot_confusion(confusion, ["cat", "dog"]).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown.filled(0), [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.75, 0]])
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts == {(0, 0): "6\n75%", (1, 0): "2\n25%", (0, 2): "1\n25%", (1, 2): "3\n75%"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog", "background"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize("num_classes", [1, 12, 80])
def test_counts_fit_into_their_cells_however_many_classes_there_are(num_classes):
    side = num_classes + 1
    figure = plot_confusion(np.full((side, side), 100) + np.eye(side, dtype=int), [f"c{k}" for k in range(num_classes)])
    axes = figure.axes[0]
    encode_figure(figure, dpi=100)
    assert len(axes.get_xticklabels()) == side
    assert len(axes.texts) >= side
    cell = axes.get_window_extent().width / side
    for text in axes.texts[:20]:
        assert text.get_window_extent().width < cell
        assert text.get_fontsize() >= 5


def test_of_very_many_cells_the_highest_are_counted():
    confusion = np.arange(61 * 61).reshape(61, 61)
    axes = plot_confusion(confusion, [f"c{k}" for k in range(60)]).axes[0]
    assert sorted(int(text.get_text()) for text in axes.texts) == list(range(61 * 61 - 1000, 61 * 61))


def test_validation_losses_stand_dashed_beside_those_of_the_training():
    history = {f"{part}/loss{term}": [3.0, 2.0] for part in ("val", "train") for term in ("", "_box")}
    (axes,) = plot_training({"epoch": [1, 2], **history}).axes
    assert labels_of(axes) == ["loss", "loss_box", "validation: dashed"]
    styles = {(line.get_color(), line.get_linestyle()): line.get_linewidth() for line in axes.lines[:4]}
    assert sorted(style for _, style in styles) == ["-", "-", "--", "--"]
    assert len({color for color, _ in styles}) == 2
    assert sorted(styles.values()) == [1.4, 1.4, 2.4, 2.4]


def test_panels_stand_alone_as_well():
    history = {"epoch": [1, 2], "train/loss": [2.0, 1.0], "val/ap": [0.1, 0.2], "lr": [0.1, 0.01]}
    panels = training_panels(history)
    assert list(panels) == ["Losses", "Average precision and recall", "Learning rate"]
    together = plot_training(history).axes
    for figure, axes in zip(panels.values(), together, strict=True):
        (alone,) = figure.axes
        assert alone.get_title(loc="left") == axes.get_title(loc="left")
        np.testing.assert_array_equal(alone.lines[0].get_ydata(), axes.lines[0].get_ydata())
    precision = np.linspace(1, 0, 11)[None, :, None] * np.ones((10, 1, 2))
    for alone, axes in zip(
        precision_recall_panels(precision, ["a", "b"]), plot_precision_recall(precision, ["a", "b"]).axes, strict=True
    ):
        encode_figure(alone, dpi=50)
        (legend,) = alone.legends
        assert [text.get_text() for text in legend.get_texts()] == labels_of(axes)
        assert legend.get_window_extent().y1 <= alone.axes[0].get_tightbbox().y0


def test_training_has_a_panel_for_each_kind_of_series():
    history = {
        "epoch": [1, 2, 3],
        "train/loss": [3.0, 2.0, 1.0],
        "train/loss_box": [2.0, 1.0, 0.5],
        "train/loss_level_8": [1.0, 1.0, 1.0],
        "train/positives_level_8": [7, 8, 9],
        "val/ap": [NAN, 0.2, 0.3],
        "val/ar_100": [NAN, 0.4, 0.5],
        "lr": [0.1, 0.01, 0.001],
        "seconds": [1, 1, 1],
    }
    panels = {axes.get_title(loc="left"): axes for axes in plot_training(history).axes}
    assert list(panels) == [
        "Losses",
        "Loss of each level",
        "Positives of each level",
        "Average precision and recall",
        "Learning rate",
    ]
    assert labels_of(panels["Losses"]) == ["loss", "loss_box"]
    assert labels_of(panels["Average precision and recall"]) == ["ap", "ar_100"]
    ap = panels["Average precision and recall"].lines[0]
    assert (list(ap.get_xdata()), list(ap.get_ydata())) == ([2, 3], [0.2, 0.3])
    assert list(panels["Positives of each level"].lines[0].get_ydata()) == [7, 8, 9]
    assert sum(len(axes.lines) for axes in panels.values()) == 7


def test_what_each_level_does_has_panels_of_its_own():
    strides = (8, 16)
    history = {f"level/stride_{s}/loss": [2.0, 1.0] for s in strides}
    history |= {f"level/stride_{s}/loss_iou": [1.0, 0.5] for s in strides}
    history |= {f"level/stride_{s}/gradient": [5.0, 4.0] for s in strides}
    history |= {f"fusion/stride_{o}/from_stride_{s}": [0.5, o / (o + s)] for o in strides for s in strides}
    panels = {axes.get_title(loc="left"): axes for axes in plot_training(history).axes}
    assert list(panels) == [
        "Loss of each level", "Gradient at the neck's output", "Fusion weights", "Loss of each level: iou",
    ]  # fmt: skip
    for title in ("Loss of each level", "Gradient at the neck's output", "Loss of each level: iou"):
        assert labels_of(panels[title]) == ["stride 8", "stride 16"]
    fusion = panels["Fusion weights"]
    assert labels_of(fusion) == [f"stride {o} from stride {s}" for o in strides for s in strides]
    assert list(fusion.lines[1].get_ydata()) == [0.5, 8 / 24]
    assert fusion.lines[0].get_color() == fusion.lines[2].get_color() != fusion.lines[1].get_color()
    assert [line.get_linestyle() for line in fusion.lines] == ["-", "-", "--", "--"]


def test_the_panel_of_precision_is_named_by_what_is_in_it():
    for keys, title in ((("ap", "ap50"), "Average precision"), (("ar_1", "ar_100"), "Average recall")):
        (axes,) = plot_training({f"val/{key}": [0.1, 0.2] for key in keys}).axes
        assert axes.get_title(loc="left") == title


@pytest.mark.parametrize("epochs", [1, 2, 28])
def test_all_panels_show_the_same_whole_epochs_even_of_a_single_one(epochs):
    numbers = list(range(1, epochs + 1))
    values = [0.5] * epochs
    figure = plot_training({"epoch": numbers, "loss": values, "val/ap": [NAN] * (epochs - 1) + [0.3], "lr": values})
    encode_figure(figure, dpi=30)
    for axes in figure.axes:
        assert axes.get_xlim() == (0.5, epochs + 0.5)
        ticks = [tick for tick in axes.get_xticks() if 0.5 <= tick <= epochs + 0.5]
        assert ticks
        assert set(ticks) <= set(numbers)


def test_nothing_covers_a_curve_or_a_title():
    history = {f"loss_{name}": np.linspace(5, 1, 20) for name in "abcdef"} | {"lr": np.linspace(2e-3, 0, 20)}
    precision = np.broadcast_to(np.linspace(1, 0, 11)[None, :, None], (10, 11, 3))
    for figure in (plot_training(history), plot_precision_recall(precision, ["cat", "dog", "cow"])):
        encode_figure(figure, dpi=50)
        for axes in figure.axes:
            assert not axes.yaxis.get_offset_text().get_text()
            if axes.get_legend() is not None:
                assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1 - 1


def test_confusion_says_at_which_overlap_and_confidence_it_was_counted():
    axes = plot_confusion(np.eye(2, dtype=int), ["cat"], confidence=0.346).axes[0]
    assert axes.get_title(loc="left").endswith("\nat IoU 0.50 or more, confidence 0.35 or more")
    axes = plot_confusion(np.eye(2, dtype=int), ["cat"]).axes[0]
    assert axes.get_title(loc="left").endswith("\nat IoU 0.50 or more")


def test_a_long_noisy_series_also_shows_its_running_mean():
    values = np.tile([0.0, 2.0], 200)
    axes = plot_training({"loss": values}, x="step").axes[0]
    raw, mean = axes.lines
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, 401))
    np.testing.assert_allclose(mean.get_ydata(), 1.0)  # ten values a mean, five of each
    assert mean.get_xdata()[0] == 10


def test_training_says_what_cannot_be_plotted():
    with pytest.raises(PyrafuseError, match="among seconds, epoch: nothing to plot"):
        plot_training({"seconds": [1], "epoch": [1]})
    with pytest.raises(PyrafuseError, match=re.escape("loss has 1 values but epoch has 2: put NaN")):
        plot_training({"epoch": [1, 2], "loss": [1.0]})


def many_weights():
    """Fourteen weights of five fusions over two epochs."""
    sources = {"P3_1": "ab", "P4_1": "abc", "stride_8": "abc", "P5_1": "abc", "P6_1": "abc"}
    history = {
        f"fusion/{fused}/from_{source}": [1 / len(names), (1 + rank) / sum(range(1, len(names) + 1))]
        for fused, names in sources.items()
        for rank, source in enumerate(names)
    }
    return {"epoch": [1, 2], "loss": [2.0, 1.0], **history}


def test_many_fusion_weights_are_rows_coloured_by_their_distance_from_an_equal_share():
    figure = training_panels(many_weights())["Fusion weights"]
    axes, bar = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()][:6] == [
        "P3_1 from a", "P3_1 from b", "P4_1 from a", "P4_1 from b", "P4_1 from c", "stride 8 from a",
    ]  # fmt: skip
    (picture,) = axes.collections
    shares = np.asarray(picture.get_array()).reshape(14, 2)
    np.testing.assert_allclose(shares[:, 0], 1)
    np.testing.assert_allclose(shares[:5, 1], [2 / 3, 4 / 3, 0.5, 1, 1.5])
    assert picture.get_clim() == pytest.approx((0.5, 1.5))
    assert [t.get_text() for t in axes.texts][:5] == ["0.33", "0.67", "0.17", "0.33", "0.50"]
    assert [line.get_ydata()[0] for line in axes.lines] == [1.5, 4.5, 7.5, 10.5]
    assert axes.get_xlim() == (0.5, 2.5)
    assert bar.get_ylabel() == "weight as a multiple of an equal share"
    assert not axes.get_legend()


def test_halves_of_many_weights_stand_side_by_side_and_leave_fusions_whole():
    figure = plot_training(many_weights())
    encode_figure(figure, dpi=40)
    assert figure.axes[0].get_title(loc="left") == "Losses"
    left, right = [axes for axes in figure.axes if axes.get_title(loc="left") == "Fusion weights"]
    assert [len(axes.get_yticklabels()) for axes in (left, right)] == [8, 6]
    assert left.get_position().x1 < right.get_position().x0
    assert left.collections[0].get_clim() == right.collections[0].get_clim()


def test_weights_of_one_fusion_alone_and_gaps_are_drawn():
    history = {"epoch": [1, 2, 5], **{f"fusion/P3/from_{s}": [NAN, 1 / 13, NAN] for s in "abcdefghijklm"}}
    figure = plot_training(history)
    encode_figure(figure, dpi=30)
    axes, _ = figure.axes
    assert [t.get_text() for t in axes.texts] == ["0.08"] * 13
    assert axes.get_xlim() == (0.5, 5.5)
    assert np.ma.getmaskarray(axes.collections[0].get_array()).reshape(13, 3)[0].tolist() == [True, False, True]
