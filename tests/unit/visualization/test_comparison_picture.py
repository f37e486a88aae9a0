"""A row a data set, a colour a variant, whatever is missing."""

import math

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.visualization.comparison import ComparedVariant, plot_comparison
from pyrafuse.visualization.figures import LINE_COLORS, encode_figure

NAN = math.nan


def test_a_colour_stays_with_its_variant():
    figure = plot_comparison(
        {
            "cells": [ComparedVariant("asff", 0.4, 0.02, 2e6, 10.0), ComparedVariant("$x_1$", 0.3, NAN, 1e6, 7.0)],
            "fish": [ComparedVariant("asff", NAN, NAN, 2e6, 10.0), ComparedVariant("$x_1$", 0.2, 0.01, 1e6, NAN)],
        }
    )
    cells, sizes, fish, fish_sizes = figure.axes
    assert [bars[0].get_color() for bars in cells.containers] == list(LINE_COLORS[:2])
    assert [bars[0].get_color() for bars in fish_sizes.containers] == [LINE_COLORS[1]]
    assert not fish.containers
    assert [bars[0].get_xdata()[0] for bars in sizes.containers] == [2.0, 1.0]
    assert cells.get_title(loc="left") == "cells"
    assert encode_figure(figure)[:4] == b"\x89PNG"


def test_nothing_to_draw():
    with pytest.raises(PyrafuseError, match="no variant has an average precision"):
        plot_comparison({"cells": [ComparedVariant("asff", NAN, NAN, 1.0, 1.0)]})
