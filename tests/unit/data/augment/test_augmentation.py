import math

import cv2
import numpy as np
import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.augment.operations import (
    CROP_OVERLAPS,
    ColorShift,
    Window,
    augment,
    crop,
    draw_affine,
    draw_color_shift,
    drop_small,
    expand,
    fit_sample,
    flip,
    keep_visible,
    look_through,
    recolor,
    warp,
)
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.images.fitting import resize

NONE = Augmentation.none()
FILL = (1, 2, 3)


def sample_of(boxes, size=(100, 200), crowd=None):
    """A picture whose red is its column and whose green is its row."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    count = len(boxes)
    return Sample(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count),
        np.linspace(0.5, 1, count, dtype=np.float32),
        np.zeros(count, bool) if crowd is None else np.array(crowd, bool),
    )


def plain(image, height, width):
    return resize(image, height, width, "antialias")


def rng_of(seed=0):
    return np.random.default_rng(seed)


class Scripted:
    """A generator whose every draw is the same point of its range."""

    def __init__(self, place):
        self.place = place

    def uniform(self, low, high, size=None):
        value = low + self.place * (high - low)
        return value if size is None else np.full(size, value)

    def integers(self, high):
        return min(int(self.place * high), high - 1)


def test_a_flip_mirrors_boxes_about_the_middle():
    sample = sample_of([[10, 20, 50, 60], [0, 0, 200, 100]])
    flipped = flip(sample)
    assert flipped.boxes.tolist() == [[150, 20, 190, 60], [0, 0, 200, 100]]
    assert np.array_equal(flipped.image, sample.image[:, ::-1])
    assert np.array_equal(flip(flipped).boxes, sample.boxes)
    assert sample.boxes[0].tolist() == [10, 20, 50, 60]


def test_a_window_inside_cuts_and_scales():
    sample = sample_of([[10, 20, 50, 60], [45, 25, 60, 35], [90, 50, 140, 66], [0, 0, 45, 100]], crowd=[0, 0, 0, 1])
    seen = look_through(sample, Window(40, 20, 80, 40), (80, 240), FILL, plain)
    # x -> (x - 40) * 3, y -> (y - 20) * 2
    assert seen.boxes.tolist() == [[15, 10, 60, 30], [150, 60, 240, 80], [0, 0, 15, 80]]
    assert seen.labels.tolist() == [1, 2, 3]
    assert seen.crowd.tolist() == [False, False, True]
    assert seen.weights.tolist() == sample.weights[1:].tolist()
    assert np.array_equal(seen.image, plain(sample.image[20:60, 40:120], 80, 240))


def test_a_window_beyond_the_image_is_filled():
    sample = sample_of([[10, 20, 50, 60]])
    seen = look_through(sample, Window(-40, -10, 400, 200), (100, 200), FILL, plain)
    assert seen.boxes.tolist() == [[25, 15, 45, 35]]
    assert np.array_equal(seen.image[5:55, 20:120], plain(sample.image, 50, 100))
    for border in (seen.image[:5], seen.image[55:], seen.image[:, :20], seen.image[:, 120:]):
        assert (border == FILL).all()


def test_boxes_follow_the_whole_pixels_that_were_pasted():
    # 200 px in a window of 300 at 100: 66.67 network pixels, of which 67 are pasted from 10 on
    sample = sample_of([[0, 0, 200, 100]])
    seen = look_through(sample, Window(-30, 0, 300, 100), (100, 100), FILL, plain)
    assert seen.boxes.tolist() == [[10, 0, 77, 100]]
    assert (seen.image[:, 77:] == FILL).all()
    assert (seen.image[:, 10:77, 2] == 0).all()


@pytest.mark.parametrize(
    ("place", "expected"),
    [(0.0, Window(0, 0, 200, 100)), (0.5, Window(-150, -75, 500, 250)), (1.0, Window(-600, -300, 800, 400))],
)
def test_expanding_keeps_the_ratio_and_the_image_inside(place, expected):
    assert expand(Window(0, 0, 200, 100), 4.0, Scripted(place)) == expected


def test_a_crop_holds_an_object_and_overlaps_it():
    box = np.array([[60, 30, 120, 80]], np.float32)
    sizes = set()
    for seed in range(200):
        window = crop(Window(-20, 0, 240, 120), box, 0.3, rng_of(seed))
        overlap = CROP_OVERLAPS[rng_of(seed).integers(len(CROP_OVERLAPS))]
        right, bottom = window.left + window.width, window.top + window.height
        assert -20 <= window.left < 90 < right <= 220
        assert 0 <= window.top < 55 < bottom <= 120
        shared = (min(120, right) - max(60, window.left)) * (min(80, bottom) - max(30, window.top))
        iou = shared / (window.width * window.height + 3000 - shared)
        is_whole = window == Window(-20, 0, 240, 120)
        assert is_whole or (iou >= overlap and window.width >= 72 and window.height >= 36)
        sizes.add((window.width, window.height))
    assert len(sizes) > 90


def test_a_crop_that_cannot_be_is_the_window():
    outside = np.array([[500, 500, 600, 600]], np.float32)
    window = Window(0, 0, 200, 100)
    assert crop(window, outside, 0.3, rng_of()) == window


def test_a_shift_moves_boxes_and_pixels_alike():
    sample = sample_of([[10, 20, 50, 60], [150, 20, 190, 60], [180, 0, 200, 40], [170, 0, 200, 40]], crowd=[0, 0, 0, 1])
    matrix = np.array([[1, 0, 25], [0, 1, -10], [0, 0, 1.0]])
    moved = warp(sample, matrix, FILL)
    # the third one's centre (215) has left; of the crowd five columns remain
    assert moved.boxes.tolist() == [[35, 10, 75, 50], [175, 10, 200, 50], [195, 0, 200, 30]]
    assert moved.labels.tolist() == [0, 1, 3]
    assert np.array_equal(moved.image[:90, 25:], sample.image[10:, :-25])
    assert (moved.image[:, :25] == FILL).all()
    assert (moved.image[90:] == FILL).all()


def test_a_quarter_turn_takes_boxes_with_it():
    sample = sample_of([[60, 20, 80, 60]], size=(100, 100))
    matrix = np.array([[0, -1, 100], [1, 0, 0], [0, 0, 1.0]])  # (x, y) -> (100 - y, x)
    turned = warp(sample, matrix, FILL)
    assert turned.boxes.tolist() == [[40, 60, 80, 80]]
    assert np.array_equal(turned.image, np.rot90(sample.image, -1))


def test_a_box_that_turns_is_framed_anew():
    sample = sample_of([[40, 40, 60, 60]], size=(100, 100))
    cos = math.cos(math.radians(30))
    matrix = np.array([[cos, 0.5, 50 - 50 * cos - 25], [-0.5, cos, 50 + 25 - 50 * cos], [0, 0, 1]])
    half = 10 * (cos + 0.5)
    assert warp(sample, matrix, FILL).boxes[0].tolist() == pytest.approx([50 - half] * 2 + [50 + half] * 2)


def test_an_affine_without_range_is_the_identity():
    still = Augmentation(affine_degrees=0, affine_shift=0, affine_scale=0, affine_shear_degrees=0)
    assert np.allclose(draw_affine(Window(3, 4, 200, 100), still, rng_of()), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_the_extremes_of_an_affine(place):
    sign = 2 * place - 1
    matrix = draw_affine(Window(0, 0, 200, 100), Augmentation(), Scripted(place))
    cos, sin = math.cos(math.radians(10)), sign * math.sin(math.radians(10))
    shear = sign * math.tan(math.radians(2))
    scale = 1 + sign * 0.1
    expected = scale * np.array([[cos - shear * sin, sin + shear * cos], [shear * cos - sin, shear * sin + cos]])
    assert np.allclose(matrix[:2, :2], expected)
    assert np.allclose(matrix @ (100, 50, 1), (100 + sign * 20, 50 + sign * 10, 1))  # the middle is only shifted


def test_an_object_goes_with_its_centre_and_a_crowd_with_its_last_pixel():
    boxes = [[-10, 0, 11, 20], [-11, 0, 10, 20], [-11, 0, 10, 20], [-11, 0, 0, 20], [190, 90, 250, 101]]
    seen = keep_visible(sample_of(boxes, crowd=[0, 0, 1, 1, 1]), (0, 0, 200, 100))
    assert seen.labels.tolist() == [0, 2, 4]
    assert seen.boxes.tolist() == [[0, 0, 11, 20], [0, 0, 10, 20], [190, 90, 200, 100]]


def test_a_box_of_exactly_the_limit_is_dropped():
    sample = sample_of([[0, 0, 6, 50], [0, 0, 6.5, 50], [0, 0, 50, 3], [0, 0, 2, 2]], crowd=[0, 0, 0, 1])
    assert drop_small(sample, 6).labels.tolist() == [1, 3]


def test_no_change_of_colour_is_none():
    image = sample_of([]).image
    assert np.array_equal(recolor(image, ColorShift()), image)


def test_contrast_and_brightness_by_hand():
    image = np.array([[[0, 100, 200]]], np.uint8)
    assert recolor(image, ColorShift(contrast=1.5, brightness=-20)).tolist() == [[[0, 130, 255]]]


def test_saturation_and_hue_by_hand():
    red = np.array([[[200, 0, 0]]], np.uint8)
    assert recolor(red, ColorShift(saturation=0.5)).tolist() == [[[200, 100, 100]]]
    assert abs(recolor(red, ColorShift(hue=120)).astype(int) - (0, 200, 0)).max() <= 6  # 256 steps a turn
    assert abs(recolor(red, ColorShift(hue=-120)).astype(int) - (0, 0, 200)).max() <= 6
    grey = np.array([[[90, 90, 90]]], np.uint8)
    assert recolor(grey, ColorShift(saturation=1.5, hue=18)).tolist() == [[[90, 90, 90]]]


def test_colour_stays_within_its_strength():
    shifts = [draw_color_shift(Augmentation(color_strength=0.5), rng_of(seed)) for seed in range(400)]
    for name, neutral, reach in (("contrast", 1, 0.25), ("brightness", 0, 16), ("saturation", 1, 0.25), ("hue", 0, 9)):
        values = np.array([getattr(shift, name) for shift in shifts])
        assert abs(values - neutral).max() <= reach
        assert 0.4 < (values != neutral).mean() < 0.6


@pytest.mark.parametrize("preprocessing", [Preprocessing(size=(64, 96)), Preprocessing(size=(64, 96), fit="letterbox")])
def test_without_augmentation_the_sample_is_only_fitted(preprocessing):
    sample = sample_of([[10, 20, 50, 60], [0, 0, 2, 2]], crowd=[0, 1])
    augmented, fitted = augment(sample, preprocessing, NONE, rng_of()), fit_sample(sample, preprocessing)
    assert np.array_equal(augmented.image, fitted.image)
    assert np.array_equal(augmented.boxes, fitted.boxes)
    assert augmented.crowd.tolist() == [False, True]
    expected = [4.8, 12.8, 24, 38.4] if preprocessing.fit == "stretch" else [4.8, 9.6, 24, 28.8]
    assert fitted.boxes[0].tolist() == pytest.approx(expected)
    assert fitted.image.shape == (64, 96, 3)
    assert augmented.size == fitted.size == ((64, 96) if preprocessing.fit == "stretch" else (48, 96))


def test_where_nothing_large_is_left_the_image_is_used_as_it_was():
    sample = sample_of([[10, 20, 14, 24], [100, 50, 103, 53]])
    preprocessing = Preprocessing(size=(100, 200))
    augmented = augment(sample, preprocessing, Augmentation(mixup_probability=0, min_box_px=90), rng_of())
    assert np.array_equal(augmented.image, sample.image)
    assert np.array_equal(augmented.boxes, sample.boxes)


def test_an_image_without_objects_is_augmented_too():
    sample = sample_of([])
    pictures = {
        augment(sample, Preprocessing(size=(32, 32)), Augmentation(), rng_of(s)).image.tobytes() for s in range(9)
    }
    assert len(pictures) > 5


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("seed", range(12))
def test_boxes_stay_on_their_object(fit, seed):
    """A bright block is found again inside its box, and nowhere else."""
    image = np.zeros((240, 320, 3), np.uint8)
    image[80:180, 60:220] = 250
    sample = Sample(
        image, np.array([[60, 80, 220, 180]], np.float32), np.zeros(1, int), np.ones(1, np.float32), np.zeros(1, bool)
    )
    settings = Augmentation(
        color_probability=0, affine_probability=1, affine_degrees=0, affine_shear_degrees=0, random_interpolation=False
    )
    preprocessing = Preprocessing(size=(160, 192), fit=fit, mean=(0.0, 0.0, 0.0))
    augmented = augment(sample, preprocessing, settings, rng_of(seed))
    rows, columns = np.nonzero(augmented.image[..., 0] > 125)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert augmented.boxes[0].tolist() == pytest.approx(found, abs=1.01)


def test_operations_leave_their_argument_alone():
    sample = sample_of([[10, 20, 50, 60], [60, 10, 190, 90]])
    image, boxes = sample.image.copy(), sample.boxes.copy()
    for seed in range(30):
        augment(sample, Preprocessing(size=(100, 200)), Augmentation(), rng_of(seed))
    assert np.array_equal(sample.image, image)
    assert np.array_equal(sample.boxes, boxes)


def test_the_same_generator_gives_the_same_picture():
    cv2.setNumThreads(0)
    sample = sample_of([[10, 20, 50, 60], [60, 10, 190, 90]])
    first, second = (augment(sample, Preprocessing(size=(64, 64)), Augmentation(), rng_of(5)) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.boxes, second.boxes)


def test_a_setting_out_of_range_is_refused():
    with pytest.raises(PyrafuseError, match=r"flip_probability is 1\.5; choose a value from 0 to 1"):
        Augmentation(flip_probability=1.5)
    with pytest.raises(PyrafuseError, match=r"expand_max_ratio is 0\.5"):
        Augmentation(expand_max_ratio=0.5)
