"""Fitted images, normalised: numpy arrays and torch tensors alike."""

from collections.abc import Sequence

import numpy as np

from pyrafuse.base.arrays import Array, floats_like
from pyrafuse.base.preprocessing import Preprocessing


def normalize(preprocessing: Preprocessing, images: Array, sizes: Sequence[tuple[int, int]] = ()) -> Array:
    """(B, 3, H, W) uint8 RGB -> float32 with zero mean and unit deviation, of the kind and on the device of ``images``.

    Args:
        preprocessing: Mean, deviation, order of the channels and fit.
        images: Images of the network's size.
        sizes: Height and width that each image takes up of them; where ``keep_ratio`` fits, the rest becomes 0.
    """
    is_numpy = isinstance(images, np.ndarray)
    floats = images.astype(np.float32) if is_numpy else images.float()
    mean = floats_like(floats, preprocessing.mean).reshape(1, 3, 1, 1) * 255
    std = floats_like(floats, preprocessing.std).reshape(1, 3, 1, 1) * 255
    normalized = (floats - mean) / std
    if preprocessing.bgr:
        normalized = normalized[:, ::-1] if is_numpy else normalized.flip(1)
    if preprocessing.fit == "keep_ratio":
        for image, (height, width) in zip(normalized, sizes, strict=False):
            image[:, height:] = 0
            image[:, :, width:] = 0
    return normalized
