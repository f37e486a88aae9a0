"""Boxes and captions on images: what is written, how large, and that objects stay visible."""

import numpy as np
import pytest
import torch
from PIL import ImageColor, ImageDraw

from pyrafuse.base.captions import draw_boxes, place_captions

BLUE = "#4363d8"


def grey(height, width):
    return torch.full((3, height, width), 200, dtype=torch.uint8)


@pytest.fixture
def written(monkeypatch):
    """(text, font size) in the order of writing."""
    texts = []
    write = ImageDraw.ImageDraw.text

    def record(self, place, text, *, fill, font):
        texts.append((text, font.size))
        write(self, place, text, fill=fill, font=font)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return texts


def draw(image, boxes, name="penguin"):
    n = len(boxes)
    return draw_boxes(
        image, torch.tensor(boxes, dtype=torch.float32), [name] * n, [f"0.{90 - i}" for i in range(n)], [BLUE] * n
    )


def test_with_room_each_caption_says_name_and_score_and_no_legend_is_needed(written):
    picture = draw(grey(400, 400), [[50, 100, 150, 200], [250, 100, 350, 200]])
    assert [text for text, _ in written] == ["penguin 0.90", "penguin 0.89"]
    assert (picture[:, 103:198, 53:148] == 200).all()


@pytest.mark.parametrize(("height", "line", "rim"), [(60, 2, 1), (1800, 6, 2)])
def test_lines_have_white_edges_that_show_on_dark_pictures(height, line, rim):
    picture = draw_boxes(
        torch.zeros(3, height, height, dtype=torch.uint8), torch.tensor([[20, 20, 50, 50]]), [""], [""], [BLUE]
    )
    blue = torch.tensor(ImageColor.getrgb(BLUE), dtype=torch.uint8)
    row = picture[:, 35]  # of the left edge, from outside to inside
    start = 20 - line // 2 - rim
    assert (row[:, start - 1] == 0).all()
    assert (row[:, start : start + rim] == 255).all()
    assert (row[:, 20 - line // 2 : 20 - line // 2 + line] == blue[:, None]).all()
    inner = 20 - line // 2 + line
    assert (row[:, inner : inner + rim] == 255).all()
    assert (row[:, inner + rim] == 0).all()


def test_many_small_objects_stay_visible_under_short_captions_and_a_legend(written):
    boxes = [[x, 250, x + 14, 270] for x in range(40, 340, 18)]
    picture = draw(grey(512, 384), boxes)
    texts = [text for text, _ in written]
    assert texts[-1] == "penguin"
    assert len([text for text in texts if text.startswith("0.")]) >= 8
    assert len(texts) - 1 >= 12
    for x1, y1, x2, y2 in boxes:
        inner = picture[:, y1 + 2 : y2 - 1, x1 + 2 : x2 - 1]
        assert (inner == 200).all(dim=0).float().mean() > 0.6


def test_captions_never_cover_each_other(monkeypatch):
    spots = []
    monkeypatch.setattr("pyrafuse.base.captions._write", lambda draw, spot, *_: spots.append(spot.tolist()))
    draw(grey(300, 300), [[100 + 3 * i, 100 + 2 * i, 160 + 3 * i, 170 + 2 * i] for i in range(12)])
    *captions, _ = spots  # the legend is last
    assert len(captions) > 4
    for i, (ax1, ay1, ax2, ay2) in enumerate(captions):
        for bx1, by1, bx2, by2 in captions[:i]:
            assert min(ax2, bx2) <= max(ax1, bx1) or min(ay2, by2) <= max(ay1, by1)
    assert all(min(x1, y1) >= 0 and x2 <= 300 and y2 <= 300 for x1, y1, x2, y2 in captions)


def test_lines_and_letters_grow_with_the_image(written):
    def line_px(image):
        middle = draw(image, [[image.shape[2] // 4, image.shape[1] // 4, image.shape[2] // 2, image.shape[1] // 2]])
        row = middle[:, image.shape[1] * 3 // 8]
        return int((row == torch.tensor(ImageColor.getrgb(BLUE))[:, None]).all(dim=0).sum()) / 2

    assert line_px(grey(400, 400)) == 2
    assert line_px(grey(1800, 1800)) == 6
    assert [size for _, size in written] == [10, 40]


def test_odd_boxes_and_names_are_drawn_all_the_same():
    inf, nan = float("inf"), float("nan")
    image = grey(40, 30)
    picture = draw(image, [[-9, -9, 99, 99], [20, 20, 10, 10], [5, nan, inf, 20], [50, 50, 60, 60]], "a\n海")
    assert picture.shape == image.shape
    assert (image == 200).all()
    assert (draw(image, [[2, 2, 20, 20]], "") != 200).any()


def test_each_caption_takes_the_first_free_place_and_keeps_a_former_one_where_there_is_none():
    boxes = np.asarray([[20, 30, 60, 70], [20, 30, 60, 70], [0, 0, 99, 99], [20, 30, 60, 70]])
    spots = place_captions(boxes, [(10, 8), (10, 8), (0, 0), (200, 8)], (100, 100))
    assert spots.tolist() == [[20, 22, 30, 30], [51, 22, 61, 30], [0, 0, 0, 0], [0, 0, 0, 0]]
    # wider, only the first one has room: above its box it still hides nothing
    wider = place_captions(boxes, [(25, 8), (200, 8), (0, 0), (0, 0)], (100, 100), former=spots)
    assert wider.tolist() == [[20, 22, 45, 30], *spots[1:].tolist()]


def test_no_place_hides_more_than_a_fifth_of_a_box_together_with_others():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 180, (300, 2))
    boxes = np.hstack([low, low + rng.integers(8, 60, (300, 2))])
    spots = place_captions(boxes, [(14, 9)] * 300, (200, 200))
    placed = spots[spots.any(axis=1)]
    canvas = np.zeros((240, 240), int)
    for x1, y1, x2, y2 in placed:
        canvas[y1:y2, x1:x2] += 1
    assert canvas.max() == 1
    assert 20 < len(placed) < 300
    assert max(canvas[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in boxes) < 0.2
