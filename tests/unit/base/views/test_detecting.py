"""A detector in views: tiles and flips give what it would find in the whole image, and one view is passed through."""

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from pyrafuse.base.card import Card
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.views.cutting import Views
from pyrafuse.base.views.detecting import InViews, count_ahead, in_views, predict_telling


class Bright:
    """Finds connected bright areas, red ones of class 0 and green ones of class 1; larger areas score higher."""

    card = Card(names=("red", "green"), preprocessing=Preprocessing(size=(64, 64)))

    def __init__(self, kind=np.asarray):
        self.kind = kind
        self.batches, self.sizes, self.asked = [], [], []

    def predict_frames(self, frames, *, batch_size, preprocessing, score_threshold, max_detections, labels, clip, **_):
        assert not clip
        self.asked.append((score_threshold, max_detections, labels))
        frames = iter(frames)
        while batch := list(islice(frames, batch_size)):
            self.batches.append(len(batch))
            for frame in batch:
                self.sizes.append((frame.image.shape[:2], preprocessing.size))
                yield self.find(frame.image)

    def find(self, image):
        rows = []
        for label in (0, 1):
            _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., label] > 127).astype(np.uint8))
            rows += [(x, y, x + w, y + h, label, area) for x, y, w, h, area in stats[1:].tolist()]
        rows.sort(key=lambda row: -row[5])
        table = np.array(rows, np.float32).reshape(-1, 6)
        boxes, labels, scores = table[:, :4], table[:, 4].astype(np.int64), (table[:, 5] / 1e4).clip(0, 1)
        levels = np.zeros(len(rows), np.int64)
        columns = map(self.kind, (boxes, scores.astype(np.float32), labels, levels))
        return Detections(*columns, names=self.card.names, image_size=image.shape[:2])


def draw(*boxes, size=(200, 300)):
    image = np.zeros((*size, 3), np.uint8)
    for label, x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2, label] = 255
    return image


def boxes_in(views, *images, detector=None, **options):
    """(label, box) of everything found in each image, in order."""
    frames = [Frame(f"image{i}", image) for i, image in enumerate(images)]
    found = InViews(detector or Bright(), views).predict_frames(frames, **options)
    return [sorted((d.label, *map(int, d.box)) for d in each) for each in found]


def scene(seed):
    """A grid of red and green rectangles of many sizes that do not touch."""
    rng = np.random.default_rng(seed)
    boxes = []
    for row in range(3):
        for column in range(4):
            x, y = 75 * column + int(rng.integers(2, 20)), 66 * row + int(rng.integers(2, 20))
            width, height = rng.integers(6, 50, 2).tolist()
            boxes.append((int(rng.integers(2)), x, y, x + width, y + height))
    return sorted(boxes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "views",
    [
        Views(tile=100, overlap=0.5),  # every rectangle lies whole in a tile
        Views(tile=64, overlap=0.3),  # many are cut, by several borders
        Views(tile=64, overlap=0.3, flip=True),
        Views(tile=64, overlap=0.3, merge="wbf"),
        Views(flip=True),
        Views(flip=True, merge="wbf"),
    ],
)
def test_all_is_found_as_in_the_whole_image(seed, views):
    boxes = scene(seed)
    assert boxes_in(views, draw(*boxes)) == [boxes]


def test_an_object_larger_than_a_tile_is_put_together():
    boxes = [(0, 5, 20, 290, 60), (1, 140, 5, 180, 190)]
    assert boxes_in(Views(tile=96, overlap=0.25), draw(*boxes)) == [boxes]


def test_a_symmetric_image_flipped_is_itself():
    boxes = [(0, 20, 30, 60, 70), (0, 240, 30, 280, 70), (1, 130, 100, 170, 180)]
    frame = Frame("a.png", draw(*boxes))
    (plain,) = InViews(Bright(), Views()).predict_frames([frame])
    for merge in ("nms", "wbf"):
        (flipped,) = InViews(Bright(), Views(flip=True, merge=merge)).predict_frames([frame])
        for one, other in zip(plain.numpy(), flipped.numpy(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_what_comes_is_of_the_detectors_kind(kind):
    image = draw((0, 60, 30, 100, 70))
    for views in (Views(tile=64), Views(tile=300), Views(flip=True)):
        (found,) = InViews(Bright(kind), views).predict_frames([Frame("a.png", image, fps=25.0)])
        columns = (found.boxes, found.scores, found.labels, found.levels, found.image)
        assert {type(column) for column in columns} == {type(kind(np.zeros(1)))}
        assert np.array_equal(np.asarray(found.image), image.transpose(2, 0, 1))
        assert (found.source, found.image_size, found.names) == ("a.png", (200, 300), ("red", "green"))
        assert [str(column.dtype).removeprefix("torch.") for column in columns] == [
            "float32", "float32", "int64", "int64", "uint8"
        ]  # fmt: skip
        assert found.draw().shape == (3, 200, 300)
        assert len(found.crop()) == 1


def test_views_of_several_images_share_batches_and_large_ones_are_worked_on_alone():
    detector = Bright()
    images = [draw((0, 5, 5, 20, 20), size=(64, 64))] * 3 + [draw((1, 5, 5, 20, 20), size=(64, 250))] + [
        draw((0, 9, 9, 30, 30), size=(32, 32))
    ]  # fmt: skip
    found = boxes_in(Views(tile=64, overlap=0), *images, detector=detector, batch_size=3)
    assert found == [[(0, 5, 5, 20, 20)]] * 3 + [[(1, 5, 5, 20, 20)], [(0, 9, 9, 30, 30)]]
    assert detector.batches == [3, 3, 1, 1]
    assert count_ahead(InViews(detector, Views(tile=64)), 8) == 1
    assert count_ahead(InViews(detector, Views(flip=True)), 8) == count_ahead(detector, 8) == 8


def test_scales_are_other_sizes_of_the_input():
    detector = Bright()
    boxes = scene(0)
    assert boxes_in(Views(scales=(1.0, 0.75, 2.0)), draw(*boxes), detector=detector) == [boxes]
    assert [size for _, size in detector.sizes] == [(64, 64), (32 * round(1.5), 32 * round(1.5)), (128, 128)]
    wide = replace(detector.card.preprocessing, size=(100, 160), fit="keep_ratio")
    detector.sizes.clear()
    boxes_in(Views(scales=(1.0, 0.75)), draw(*boxes), detector=detector, preprocessing=wide)
    assert [size for _, size in detector.sizes] == [(100, 160), (75, 120)]


def test_limits_hold_for_what_was_put_together():
    boxes = scene(1)
    detector = Bright()
    options = {"score_threshold": 0.01, "max_detections": 5, "labels": (0, 1)}
    (found,) = InViews(detector, Views(tile=100, overlap=0.5)).predict_frames([Frame("a", draw(*boxes))], **options)
    assert len(found) == 5
    assert set(detector.asked) == {(0.01, 5, (0, 1))}
    scores = found.scores.tolist()
    assert scores == sorted(scores, reverse=True)
    half = Views(flip=True, merge="wbf")
    one_sided = Bright()
    find = one_sided.find
    one_sided.find = lambda image: find(image) if image[0, 0, 2] == 0 else find(image)[[]]
    image = draw((0, 100, 100, 150, 150))
    image[0, -1, 2] = 255  # in the flipped image nothing is found
    for least, count in ((0.12, 1), (0.13, 0)):  # 0.25 of an area of 2,500 px, halved
        (found,) = InViews(one_sided, half).predict_frames([Frame("a", image)], score_threshold=least)
        assert len(found) == count


def test_one_view_is_the_detector_itself():
    detector = Bright()
    assert in_views(detector, Views()) is detector
    (found,) = InViews(detector, Views(tile=4096)).predict_frames([Frame("a", draw(*scene(2)))])
    assert [list(map(int, box)) for box in found.boxes] == detector.find(draw(*scene(2))).boxes.astype(int).tolist()
    assert list(InViews(detector, Views(tile=64)).predict_frames([Frame("broken", None, error="cannot be read")])) == []
    (tiny,) = InViews(detector, Views(tile=64, flip=True)).predict_frames([Frame("a", draw(size=(1, 1)))])
    assert len(tiny) == 0


def test_a_size_that_a_detector_has_not_names_the_scale():
    class Fixed(Bright):
        def predict_frames(self, frames, *, preprocessing, **options):
            if preprocessing.size != (64, 64):
                raise PyrafuseError("a.onnx computes at 64 x 64 pixels alone")
            return super().predict_frames(frames, preprocessing=preprocessing, **options)

    with pytest.raises(PyrafuseError, match=r"pixels alone \(augment asks for 1.5 times the size\)"):
        boxes_in(Views(scales=(1.0, 1.5)), draw(), detector=Fixed())


@pytest.mark.parametrize("batch_size", [1, 20])
def test_what_is_done_is_told_tile_by_tile(batch_size):
    frames = [Frame("large", draw(size=(200, 300))), Frame("small", draw(size=(64, 64)))]
    told = []
    views = Views(tile=100, overlap=0.0, scales=(1.0, 1.5))  # six tiles and one, at two scales
    found = predict_telling(InViews(Bright(), views), frames, told.append, batch_size=batch_size)
    assert len(list(found)) == 2
    assert sorted(told) == pytest.approx([1 / 12] * 12 + [1 / 2] * 2)
    told.clear()
    assert len(list(predict_telling(Plain(), frames, told.append))) == 2
    assert told == [1, 1]


class Plain:
    def predict_frames(self, frames):
        yield from frames
