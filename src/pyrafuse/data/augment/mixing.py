"""Several images in one: mixup and mosaic."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pyrafuse.base.images.fitting import blank
from pyrafuse.data.augment.operations import keep_visible
from pyrafuse.data.augment.sample import Sample
from pyrafuse.data.images.fitting import resize

MIXUP_ROWS = 32
"""Rows blended at once, so that they stay in the processor's cache."""


def mixup(first: Sample, second: Sample, share: float) -> Sample:
    """Blend two images, top left corners together, on a black canvas that holds both.

    Zhang et al., "mixup", arXiv:1710.09412, in the form of "Bag of Freebies", arXiv:1902.04103: objects keep their
    place and size, and weigh as much as their image. Grey levels are truncated, as in ASFF.

    Args:
        first: Image of weight ``share``.
        second: Weighs ``1 - share``.
        share: Weight of the first image, 0..1.
    """
    images = first.image, second.image
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    shares = np.float32(share), np.float32(1 - share)
    canvas = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, MIXUP_ROWS):  # a float canvas of the whole image takes five times as long
        band = np.zeros_like(canvas[y : y + MIXUP_ROWS], np.float32)
        for image, weight in zip(images, shares, strict=True):
            rows = image[y : y + MIXUP_ROWS]
            band[: rows.shape[0], : rows.shape[1]] += rows * weight
        canvas[y : y + MIXUP_ROWS] = band
    weights = np.concatenate([first.weights * shares[0], second.weights * shares[1]])
    return replace(_join(first, second), image=canvas, weights=weights)


def mosaic(
    samples: Sequence[Sample], size: tuple[int, int], fill: tuple[int, int, int], rng: np.random.Generator
) -> Sample:
    """Lay four images around a random point; each is scaled to half or up to the whole of ``size``.

    Bochkovskiy et al., "YOLOv4", arXiv:2004.10934.

    Args:
        samples: Four: top left, top right, bottom left, bottom right.
        size: Height and width of the result in pixels.
        fill: RGB where an image does not reach the border.
        rng: Where the point and the scales come from.
    """
    height, width = size
    center = round(width * rng.uniform(0.25, 0.75)), round(height * rng.uniform(0.25, 0.75))
    fits = [min(height / s.image.shape[0], width / s.image.shape[1]) for s in samples]
    scaled = [_scale(s, fit * rng.uniform(0.5, 1.0)) for s, fit in zip(samples, fits, strict=True)]
    return lay_around(scaled, center, size, fill)


def lay_around(
    samples: Sequence[Sample], center: tuple[int, int], size: tuple[int, int], fill: tuple[int, int, int]
) -> Sample:
    """Lay four images with their inner corners at ``center`` (x, y) on a canvas of ``size``; what sticks out is cut."""
    height, width = size
    x, y = center
    canvas = blank(size, fill)
    pieces = []
    for i, sample in enumerate(samples):
        is_right, is_lower = i % 2 == 1, i >= 2
        image_height, image_width = sample.image.shape[:2]
        left = x if is_right else x - image_width
        top = y if is_lower else y - image_height
        x1, x2 = max(left, 0), min(left + image_width, width)
        y1, y2 = max(top, 0), min(top + image_height, height)
        canvas[y1:y2, x1:x2] = sample.image[y1 - top : y2 - top, x1 - left : x2 - left]
        shift = np.asarray((left, top, left, top), np.float32)
        pieces.append(keep_visible(replace(sample, boxes=sample.boxes + shift), (x1, y1, x2, y2)))
    return replace(_join(*pieces), image=canvas)


def _scale(sample: Sample, scale: float) -> Sample:
    height, width = sample.image.shape[:2]
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    scales = np.asarray((new_width / width, new_height / height) * 2, np.float32)
    return replace(sample, image=resize(sample.image, new_height, new_width, "antialias"), boxes=sample.boxes * scales)


def _join(*samples: Sample) -> Sample:
    """The first one's image with the objects of all."""
    return Sample(
        samples[0].image,
        np.concatenate([s.boxes for s in samples]),
        np.concatenate([s.labels for s in samples]),
        np.concatenate([s.weights for s in samples]),
        np.concatenate([s.crowd for s in samples]),
    )
