"""Writing figures out."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.visualization.figures import plain, save_figure


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1), facecolor="red")
    figure.add_axes((0.5, 0, 0.5, 1)).set_axis_off()
    return figure


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_has_the_size_and_colour_of_the_figure(figure, tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    save_figure(figure, path, dpi=50)
    with Image.open(path) as picture:
        assert picture.size == (100, 50)
        np.testing.assert_allclose(picture.convert("RGB").getpixel((10, 10)), (255, 0, 0), atol=3)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_vector_formats(figure, tmp_path):
    save_figure(figure, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    save_figure(figure, tmp_path / "a.PDF")
    assert (tmp_path / "a.PDF").read_bytes()[:4] == b"%PDF"


def test_an_unknown_suffix_is_refused_and_the_choices_named(figure, tmp_path):
    with pytest.raises(PyrafuseError, match=r"a\.bmp: choose a suffix from \.png, \.jpg"):
        save_figure(figure, tmp_path / "a.bmp")
    assert not list(tmp_path.iterdir())


def test_plain_text():
    assert plain("a $x$ b") == r"a \$x\$ b"
    assert plain(r"a \$ b") == r"a \$ b"
    assert plain("_a") == " _a"
    assert plain("a_b") == "a_b"


def test_no_state_of_pyplot_is_touched():
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
