from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.images.fitting import Fit, blank, compute_inner_size, compute_inner_sizes, compute_padded_size
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.images.fitting import fit_image, resize, stack_images
from vectors import FOLDER

OPENCV_64 = Preprocessing(size=(64, 64), interpolation="opencv")


def noise(height, width, seed=0):
    """Blurred noise: hard on a resize without being white."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [64, 32])
def test_opencv_preprocessing_equals_the_official_one(size):
    golden = np.load(FOLDER / "asff/data.npz")
    preprocessing = Preprocessing(size=(size, size), interpolation="opencv")
    image, fit = fit_image(np.ascontiguousarray(golden["bgr"][..., ::-1]), preprocessing)
    expected = torch.from_numpy(golden[f"val_{size}"])
    std = torch.tensor(preprocessing.std).view(3, 1, 1) * 255
    levels = (normalize(preprocessing, image[None])[0] - expected).abs() * std
    assert levels.max() < 1e-3
    assert (fit.scale_x, fit.scale_y) == (size / 53, size / 37)


@pytest.mark.parametrize("size", [(416, 416), (100, 333), (700, 650)])
@pytest.mark.parametrize(
    ("interpolation", "filtered", "levels", "share"),
    [("antialias", Image.Resampling.BILINEAR, 1, 0.02), ("bicubic", Image.Resampling.BICUBIC, 2, 0.05)],
)
def test_filtered_resizing_equals_pillows_within_a_level_or_two(size, interpolation, filtered, levels, share):
    image = noise(300, 500)
    ours = resize(image, *size, interpolation).astype(int)
    pillow = np.asarray(Image.fromarray(image).resize(size[::-1], filtered)).astype(int)
    assert abs(ours - pillow).max() <= levels
    assert (ours != pillow).mean() < share


@pytest.mark.parametrize("shape", [(300, 80), (80, 300)])
def test_what_is_predicted_is_resized_along_the_rows_first(shape):
    image = noise(*shape)
    bilinear = Image.Resampling.BILINEAR
    expected = Image.fromarray(image).resize((90, shape[0]), bilinear).resize((90, 60), bilinear)
    fitted, _ = fit_image(image, Preprocessing(size=(60, 90)))
    assert np.array_equal(fitted.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_resize_takes_windows_of_a_larger_image():
    image = noise(120, 160)
    window = image[10:90, 20:140]
    assert np.array_equal(resize(window, 32, 48, "antialias"), resize(window.copy(), 32, 48, "antialias"))


def test_stretch_scales_each_axis():
    image, fit = fit_image(noise(50, 200), Preprocessing(size=(100, 100)))
    assert image.shape == (3, 100, 100)
    assert image.dtype == torch.uint8
    assert fit == Fit(scale_x=0.5, scale_y=2.0, height=50, width=200)


@pytest.mark.parametrize(
    ("shape", "inner", "scales"),
    [((50, 200), (16, 64), (0.32, 0.32)), ((200, 50), (64, 16), (0.32, 0.32)), ((3, 640), (1, 64), (0.1, 1 / 3))],
)
def test_letterbox_keeps_the_ratio_and_fills_right_and_bottom(shape, inner, scales):
    preprocessing = Preprocessing(size=(64, 64), fit="letterbox")
    image, fit = fit_image(blank(shape, (200, 10, 30)), preprocessing)
    assert compute_inner_size(*shape, preprocessing) == inner
    assert (fit.scale_x, fit.scale_y) == pytest.approx(scales)
    color = torch.tensor([200, 10, 30]).view(3, 1, 1)
    fill = torch.tensor(preprocessing.fill_color()).view(3, 1, 1)
    expected = fill.repeat(1, 64, 64)
    expected[:, : inner[0], : inner[1]] = color
    assert torch.equal(image.int(), expected.int())


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_boxes_travel_there_and_back(kind):
    fit = Fit(scale_x=0.5, scale_y=2.0, height=50, width=200)
    boxes = kind([[10.0, 5.0, 120.0, 40.0], [-8.0, 10.0, 300.0, 60.0]])
    there = fit.to_network(boxes)
    assert there.tolist() == [[5.0, 10.0, 60.0, 80.0], [-4.0, 20.0, 150.0, 120.0]]
    assert fit.to_image(there).tolist() == boxes.tolist()
    assert fit.to_image(there, clip=True).tolist() == [[10.0, 5.0, 120.0, 40.0], [0.0, 10.0, 200.0, 50.0]]
    assert there.tolist()[1][0] == -4.0  # clipping left its argument alone


def test_no_boxes_are_no_boxes():
    fit = Fit(0.5, 2.0, 50, 200)
    assert fit.to_image(torch.zeros(0, 4), clip=True).shape == (0, 4)
    assert fit.to_network(np.zeros((0, 4), np.float32)).dtype == np.float32


def test_an_image_of_the_networks_size_is_not_touched():
    image = noise(64, 64)
    fitted, fit = fit_image(image, OPENCV_64)
    assert torch.equal(fitted, torch.from_numpy(image).permute(2, 0, 1))
    assert fit == Fit(1.0, 1.0, 64, 64)


KEEP = Preprocessing(size=(60, 100), fit="keep_ratio", mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 1.0), pad_multiple=16)


@pytest.mark.parametrize(
    ("shape", "inner", "padded"),
    [((200, 400), (50, 100), (64, 112)), ((400, 200), (100, 50), (112, 64)), ((30, 33), (60, 66), (64, 80))],
)
def test_keep_ratio_limits_both_sides_however_the_image_lies(shape, inner, padded):
    image, fit = fit_image(blank(shape, (200, 10, 30)), KEEP)
    assert (fit.size, tuple(image.shape[1:])) == (inner, padded)
    assert compute_padded_size(*shape, KEEP) == padded


def test_sides_that_end_within_a_pixel():
    shape = (31, 33)  # 60 px, and 63.87 px
    assert fit_image(blank(shape, (0, 0, 0)), KEEP)[1].size == (60, 64)
    assert fit_image(blank(shape, (0, 0, 0)), replace(KEEP, round_down=True))[1].size == (60, 63)


def test_keep_ratio_pads_with_zeros_once_normalised_also_in_a_batch():
    fitted = [fit_image(blank(shape, (51, 102, 255)), KEEP) for shape in ((200, 400), (400, 200))]
    images = stack_images([image for image, _ in fitted])
    assert images.shape == (2, 3, 112, 112)
    got = normalize(KEEP, images, [fit.size for _, fit in fitted])
    expected = torch.zeros(2, 3, 112, 112)
    for place, (_, fit) in zip(expected, fitted, strict=True):
        place[2, : fit.size[0], : fit.size[1]] = 0.4
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        normalize(replace(KEEP, bgr=True), images[:1, :, :50, :100])[0, 0], expected[0, 2, :50, :100]
    )


def test_another_size_keeps_the_proportion_of_the_limits():
    assert Preprocessing(size=(800, 1333), fit="keep_ratio").at_size(600).size == (600, 1000)
    assert KEEP.at_size((32, 64)).size == (32, 64)
    assert Preprocessing().at_size(608).size == (608, 608)


@pytest.mark.parametrize(
    ("fit", "round_down", "expected"),
    [
        ("stretch", False, [(96, 160), (96, 160)]),
        ("letterbox", False, [(96, 127), (96, 64)]),  # 127.36 and 63.68
        ("keep_ratio", False, [(96, 127), (145, 96)]),  # 144.72
        ("keep_ratio", True, [(96, 127), (144, 96)]),
    ],
)
def test_sizes_worked_out_by_hand(fit, round_down, expected):
    preprocessing = Preprocessing(size=(96, 160), fit=fit, round_down=round_down)
    sizes = np.array([(300, 398), (300, 199)])
    assert compute_inner_sizes(sizes, preprocessing).tolist() == [list(size) for size in expected]
    assert [compute_inner_size(*size, preprocessing) for size in sizes.tolist()] == expected
    assert compute_inner_sizes(sizes[:0], preprocessing).shape == (0, 2)
