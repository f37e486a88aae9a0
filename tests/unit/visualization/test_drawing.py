"""Found and true objects side by side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageColor

from pyrafuse.base.detections import PALETTE, Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.records import ImageRecord
from pyrafuse.core.detections import no_detections
from pyrafuse.visualization.drawing import draw_ground_truth_beside, draw_objects


def record_of(boxes, labels, width=100, height=80):
    n = len(labels)
    return ImageRecord(
        Path("a.jpg"), 0, width, height, np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(labels, np.int64),
        np.zeros(n, bool), np.ones(n, np.float32),
    )  # fmt: skip


IMAGE = torch.full((3, 80, 100), 200, dtype=torch.uint8)


def pixel(image, x, y):
    return tuple(image[:, y, x].tolist())


def test_found_is_left_and_true_is_right_in_the_colour_of_the_class():
    found = Detections(
        torch.tensor([[10.0, 30, 60, 70]]), torch.ones(1), torch.tensor([0]), torch.tensor([0]), ("cat", "dog"),
        (80, 100), image=IMAGE,
    )  # fmt: skip
    both = draw_ground_truth_beside(found, record_of([[20, 30, 90, 60]], [1]))
    assert both.shape == (3, 80, 208)
    assert pixel(both, 60, 65) == ImageColor.getrgb(PALETTE[0])
    assert pixel(both, 104, 40) == (255, 255, 255)
    assert pixel(both, 108 + 90, 50) == ImageColor.getrgb(PALETTE[1])
    assert pixel(both, 108 + 60, 65) == (200, 200, 200)
    assert pixel(both, 90, 50) == (200, 200, 200)
    assert (IMAGE == 200).all()


def test_no_objects_leave_the_image_as_it_is():
    nothing = replace(no_detections(), image=IMAGE)
    both = draw_ground_truth_beside(nothing, record_of([], []))
    assert torch.equal(both[:, :, :100], IMAGE)
    assert torch.equal(both[:, :, 108:], IMAGE)
    assert draw_objects(IMAGE, record_of([], [])).data_ptr() != IMAGE.data_ptr()


def test_an_image_of_another_size_or_none_is_refused():
    with pytest.raises(PyrafuseError, match=r"a\.jpg is 50x80 pixels but the detections' image is 100x80"):
        draw_ground_truth_beside(replace(no_detections(), image=IMAGE), record_of([], [], width=50))
    with pytest.raises(PyrafuseError, match="keep no image"):
        draw_ground_truth_beside(no_detections(), record_of([], []))
