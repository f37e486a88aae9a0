"""Tiles cover an image, overlap enough and lie within it; boxes come back to where they were."""

from itertools import pairwise

import numpy as np
import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.views.cutting import View, Views, cut_tiles, read_views


@pytest.mark.parametrize(("height", "width"), [(100, 100), (101, 64), (640, 3000), (64, 65), (1, 1), (1, 500)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.9])
def test_tiles_cover_the_image(height, width, overlap):
    covered = np.zeros((height, width), np.int64)
    tiles = list(cut_tiles(height, width, tile=64, overlap=overlap))
    for left, top, right, bottom in tiles:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (right - left, bottom - top) == (min(64, width), min(64, height))
        covered[top:bottom, left:right] += 1
    assert covered.min() == 1 if overlap < 0.5 else covered.min() >= 1
    lefts = sorted({tile[0] for tile in tiles})
    assert all(later - before <= 64 * (1 - overlap) + 1 for before, later in pairwise(lefts))
    assert len(set(tiles)) == len(tiles)


def test_an_image_that_is_not_larger_is_its_only_tile():
    assert Views(tile=64).of(64, 30) == (View((0, 0, 30, 64)),)
    assert [view.box for view in Views(tile=64, overlap=0).of(64, 128)] == [(0, 0, 64, 64), (64, 0, 128, 64)]


def test_each_tile_comes_flipped_and_at_each_scale():
    views = Views(tile=64, overlap=0, flip=True, scales=(1.0, 0.5), whole=True).of(64, 128)
    assert len(views) == 3 * 2 * 2
    assert views[0] == View((0, 0, 64, 64))
    assert View((0, 0, 128, 64), flipped=True, scale=0.5) in views


def test_a_part_and_its_boxes():
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    for flipped in (False, True):
        view = View((10, 5, 25, 17), flipped)
        part = view.cut(image)
        assert part.shape == (12, 15, 3)
        box = np.array([[2, 3, 6, 4]], np.float32)  # of the part
        (x1, y1, x2, y2) = view.to_image(box)[0].astype(int)
        inner = part[3:4, 2:6]
        assert np.array_equal(image[y1:y2, x1:x2], inner[:, ::-1] if flipped else inner)


def test_options():
    assert read_views() == read_views(tile=0) == Views()
    assert Views().is_single
    assert read_views(tile=640, augment=("flip",)) == Views(640, 0.2, flip=True, merge="nms")
    views = read_views(tile=640, overlap=0.1, augment=("scales", "flip", "1", "1.5", "whole"), merge="wbf")
    assert views == Views(640, 0.1, whole=True, flip=True, scales=(1.0, 1.5, 0.75, 1.25), merge="wbf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 31}, "tile must be a whole number, 32 or more, got 31"),
        ({"tile": 64, "overlap": 1.0}, r"overlap must be in 0..0.9, got 1.0"),
        ({"tile": 64, "overlap": float("nan")}, "got nan"),
        ({"overlap": 0.3}, "overlap 0.3 is for tiles, and images stay whole: give a tile, or leave overlap out"),
        ({"tile": 0, "overlap": 0.0, "augment": ("flip",)}, "overlap 0 is for tiles"),
        ({"merge": "wbf"}, "merge wbf puts together what several views find, .* give a tile or augment"),
        ({"augment": ("flop",)}, "augment has flip, scales, whole and numbers from 0.25 to 4; got 'flop'"),
        ({"augment": ("0",)}, r"a scale of augment must be in 0.25..4.0, got 0.0"),
        ({"augment": ("nan",)}, "got nan"),
        ({"augment": ("whole",)}, "give a tile, or leave whole out"),
        ({"tile": 64, "merge": "mean"}, "merge must be nms or wbf, got 'mean'"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(PyrafuseError, match=message):
        read_views(**options)
