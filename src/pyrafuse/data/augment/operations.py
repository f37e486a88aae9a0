"""One training image, varied: window -> resize -> flip -> colour -> affine -> network's input.

Expanding and cropping only choose a window, which may reach beyond the image; its pixels are taken and resized once,
straight to network size, and all that follows works on the few pixels that the network sees.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.images.fitting import Fit, blank, compute_inner_size, pad
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.images.fitting import resize, resize_to_fit

CROP_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
"""A patch has this IoU with one object at least (SSD, arXiv:1512.02325, section 2.2)."""

CROP_TRIALS = 50

INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)

Resize = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """A rectangle in whole pixels of an image; it may reach beyond the image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class ColorShift:
    """A change of colour that leaves everything in its place.

    Attributes:
        contrast: Factor on each channel.
        brightness: Added to each channel afterwards, of 255.
        saturation: Factor of the saturation.
        hue: Added, in degrees.
    """

    contrast: float = 1.0
    brightness: float = 0.0
    saturation: float = 1.0
    hue: float = 0.0


def augment(sample: Sample, preprocessing: Preprocessing, settings: Augmentation, rng: np.random.Generator) -> Sample:
    """Vary ``sample`` and fit it to the network; its image becomes (*preprocessing.size, 3).

    Where no object is left that is large enough, the sample is fitted as it is, with all its objects.
    """
    height, width = sample.image.shape[:2]
    window = Window(0, 0, width, height)
    if rng.random() < settings.expand_probability:
        window = expand(window, settings.expand_max_ratio, rng)
    if rng.random() < settings.crop_probability:
        objects = sample.boxes[~sample.crowd] if sample.has_objects() else np.array([[0, 0, width, height]], np.float32)
        window = crop(window, objects, settings.crop_min_scale, rng)
    resample: Resize = partial(resize, interpolation=preprocessing.interpolation)
    if settings.random_interpolation:
        resample = partial(_resize_by, method=INTERPOLATIONS[rng.integers(len(INTERPOLATIONS))])
    shift = draw_color_shift(settings, rng)
    inner_size = compute_inner_size(window.height, window.width, preprocessing)
    fill = preprocessing.fill_color()

    varied = look_through(sample, window, inner_size, fill, lambda image, h, w: recolor(resample(image, h, w), shift))
    if rng.random() < settings.flip_probability:
        varied = flip(varied)
    if rng.random() < settings.affine_probability:
        matrix = draw_affine(window, settings, rng)
        scaling = np.diag((inner_size[1] / window.width, inner_size[0] / window.height, 1.0))
        varied = warp(varied, scaling @ matrix @ np.linalg.inv(scaling), fill)
    varied = drop_small(varied, settings.min_box_px)
    if sample.has_objects() and not varied.has_objects():
        return fit_sample(sample, preprocessing)
    return lay_into_input(varied, preprocessing)


def fit_sample(sample: Sample, preprocessing: Preprocessing) -> Sample:
    """Fit ``sample`` to the network and change nothing else."""
    height, width = sample.image.shape[:2]
    fit = Fit.of(height, width, preprocessing)
    image = resize_to_fit(sample.image, preprocessing)
    return lay_into_input(replace(sample, image=image, boxes=fit.to_network(sample.boxes)), preprocessing)


def lay_into_input(sample: Sample, preprocessing: Preprocessing) -> Sample:
    """Lay ``sample``, as large as it takes up of the network's input, into that."""
    height, width = sample.image.shape[:2]
    return replace(sample, image=pad(sample.image, preprocessing), size=(height, width))


def expand(window: Window, max_ratio: float, rng: np.random.Generator) -> Window:
    """A window up to ``max_ratio`` times as wide and high (one ratio for both), with ``window`` anywhere inside."""
    ratio = rng.uniform(1.0, max_ratio)
    width, height = round(window.width * ratio), round(window.height * ratio)
    left = window.left - int(rng.integers(width - window.width + 1))
    top = window.top - int(rng.integers(height - window.height + 1))
    return Window(left, top, width, height)


def crop(window: Window, boxes: NDArray[np.float32], min_scale: float, rng: np.random.Generator) -> Window:
    """A patch of ``window`` that overlaps one of ``boxes`` (G, 4) enough and holds the centre of one.

    The overlap asked for is drawn from `CROP_OVERLAPS`; sides are ``min_scale`` to 1 of the window's, at a ratio of
    1/2 to 2. Where none of `CROP_TRIALS` patches will do, the window itself is returned.
    """
    overlap = CROP_OVERLAPS[rng.integers(len(CROP_OVERLAPS))]
    fractions = rng.uniform(min_scale, 1.0, (CROP_TRIALS, 2))
    sizes = np.maximum(1, np.rint(fractions * (window.width, window.height)))
    places = np.floor(rng.random((CROP_TRIALS, 2)) * ((window.width, window.height) - sizes + 1))
    corners = places + np.array((window.left, window.top))
    patches = np.concatenate([corners, corners + sizes], axis=1)

    ratios = fractions[:, 0] / fractions[:, 1]
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    holds = np.all((centers > patches[:, None, :2]) & (centers < patches[:, None, 2:]), axis=2)
    overlaps = _pairwise_iou(patches, boxes).max(axis=1)
    good = np.flatnonzero((ratios >= 0.5) & (ratios <= 2.0) & np.any(holds, axis=1) & (overlaps >= overlap))
    if not len(good):
        return window
    (left, top), (width, height) = corners[good[0]].astype(int).tolist(), sizes[good[0]].astype(int).tolist()
    return Window(left, top, width, height)


def look_through(sample: Sample, window: Window, size: tuple[int, int], fill: Color, resample: Resize) -> Sample:
    """What is seen of ``sample`` through ``window``, at ``size`` (height, width); beyond the image there is ``fill``.

    An object stays, cut at the window's edge, if its centre is inside; a crowd stays if any of it is.
    """
    height, width = sample.image.shape[:2]
    size_y, size_x = size
    left, source_x, length_x = _place(window.left, window.width, width, size_x)
    top, source_y, length_y = _place(window.top, window.height, height, size_y)
    piece = resample(sample.image[source_y, source_x], length_y, length_x)
    canvas = piece
    if piece.shape[:2] != size:
        canvas = blank(size, fill)
        canvas[top : top + length_y, left : left + length_x] = piece

    # whole pixels are pasted: the boxes follow where the pixels really went
    scale_x = length_x / (source_x.stop - source_x.start)
    scale_y = length_y / (source_y.stop - source_y.start)
    scales = np.asarray((scale_x, scale_y) * 2, np.float32)
    origin = np.asarray((left - source_x.start * scale_x, top - source_y.start * scale_y) * 2, np.float32)
    moved = replace(sample, image=canvas, boxes=sample.boxes * scales + origin)
    return keep_visible(moved, (0, 0, size_x, size_y))


def flip(sample: Sample) -> Sample:
    """Exchange left and right."""
    boxes = sample.boxes.copy()
    boxes[:, 0::2] = sample.image.shape[1] - sample.boxes[:, 2::-2]
    return replace(sample, image=np.asarray(cv2.flip(sample.image, 1), np.uint8), boxes=boxes)


def draw_affine(window: Window, settings: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """A (3, 3) matrix that turns, shears, scales and shifts about the middle of a picture of the window's size."""
    angle = math.radians(rng.uniform(-settings.affine_degrees, settings.affine_degrees))
    scale = rng.uniform(1 - settings.affine_scale, 1 + settings.affine_scale)
    shear_x, shear_y = np.tan(np.radians(rng.uniform(-1, 1, 2) * settings.affine_shear_degrees))
    shift_x, shift_y = rng.uniform(-settings.affine_shift, settings.affine_shift, 2) * (window.width, window.height)
    center_x, center_y = window.width / 2, window.height / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[1, shear_x], [shear_y, 1]]) @ turn
    matrix[:2, 2] = (center_x + shift_x, center_y + shift_y) - matrix[:2, :2] @ (center_x, center_y)
    return matrix


def warp(sample: Sample, matrix: NDArray[np.float64], fill: Color) -> Sample:
    """Move every point of ``sample`` by a (3, 3) affine ``matrix``; a box becomes the box around its moved corners.

    An object stays, cut at the image's edge, if its centre is inside; a crowd stays if any of it is.
    """
    height, width = sample.image.shape[:2]
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from pixel centres, boxes from edges
    pixels = (np.linalg.inv(half) @ matrix @ half)[:2]
    image = np.asarray(cv2.warpAffine(sample.image, pixels, (width, height), borderValue=fill), np.uint8)
    corners = sample.boxes[:, (0, 1, 2, 1, 2, 3, 0, 3)].reshape(-1, 4, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    return keep_visible(replace(sample, image=image, boxes=boxes), (0, 0, width, height))


def keep_visible(sample: Sample, region: tuple[int, int, int, int]) -> Sample:
    """Cut boxes at ``region`` (xyxy); objects whose centre is outside go, and crowds of which nothing is left."""
    low, high = np.asarray(region[:2], np.float32), np.asarray(region[2:], np.float32)
    centers = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    is_inside = ((centers > low) & (centers < high)).all(axis=1)
    boxes = np.clip(sample.boxes, np.tile(low, 2), np.tile(high, 2))
    is_seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return replace(sample, boxes=boxes).keep(is_seen & (is_inside | sample.crowd))


def drop_small(sample: Sample, min_box_px: float) -> Sample:
    """Leave out objects whose shorter side is not longer than ``min_box_px``; crowds stay."""
    sides = (sample.boxes[:, 2:] - sample.boxes[:, :2]).min(axis=1)
    return sample.keep((sides > min_box_px) | sample.crowd)


def draw_color_shift(settings: Augmentation, rng: np.random.Generator) -> ColorShift:
    """Draw each of the four changes with its probability."""
    is_changed = rng.random(4) < settings.color_probability
    amounts = rng.uniform(-settings.color_strength, settings.color_strength, 4) * is_changed
    contrast, brightness, saturation, hue = amounts.tolist()
    return ColorShift(1 + 0.5 * contrast, 32 * brightness, 1 + 0.5 * saturation, 18 * hue)


def recolor(image: NDArray[np.uint8], shift: ColorShift) -> NDArray[np.uint8]:
    """Change contrast and brightness in RGB, then saturation and hue in HSV; three table look-ups in all."""
    levels = np.arange(256, dtype=np.float32)
    changed = image
    if (shift.contrast, shift.brightness) != (1.0, 0.0):
        table = np.rint(np.clip(levels * shift.contrast + shift.brightness, 0, 255)).astype(np.uint8)
        changed = cv2.LUT(changed, table)
    if (shift.saturation, shift.hue) != (1.0, 0.0):
        table = np.stack(
            [
                np.rint(levels + shift.hue * 256 / 360) % 256,  # full hue: 256 steps a turn
                np.rint(np.clip(levels * shift.saturation, 0, 255)),
                levels,
            ],
            axis=-1,
        ).astype(np.uint8)
        hsv = cv2.LUT(cv2.cvtColor(changed, cv2.COLOR_RGB2HSV_FULL), table[None])
        changed = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return np.asarray(changed, np.uint8)


def _place(start: int, length: int, image_length: int, size: int) -> tuple[int, slice, int]:
    """Along one axis: where the image's part of a window starts in the result, which part it is, and its new length."""
    first, last = max(start, 0), min(start + length, image_length)
    scale = size / length
    new_first = min(round((first - start) * scale), size - 1)
    new_last = max(round((last - start) * scale), new_first + 1)
    return new_first, slice(first, last), new_last - new_first


def _resize_by(image: NDArray[np.uint8], height: int, width: int, *, method: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _pairwise_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """IoU (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    return shared / (areas[0][:, None] + areas[1] - shared)
