"""What an exported file is captured with and checked on: images as inputs by name.

images -> fitted, normalised as far as the graph does not do it itself -> `Feeds` of several sizes
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.exported import Interface
from pyrafuse.base.images.fitting import fit_image
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.export.registry import Feeds


def generate_images() -> list[NDArray[np.uint8]]:
    """Three images of shapes on noise, of different sizes: what a file is checked on where no others are given."""
    generator = np.random.default_rng(0)
    images = []
    for height, width in ((240, 320), (333, 517), (416, 416)):
        image = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
        image = np.kron(image, np.ones((16, 16, 1), np.uint8))[:height, :width]
        for _ in range(6):
            y, x = generator.integers(0, height // 2), generator.integers(0, width // 2)
            image[y : y + height // 3, x : x + width // 4] = generator.integers(0, 256, 3, np.uint8)
        images.append(np.ascontiguousarray(image))
    return images


def make_batches(
    images: Sequence[NDArray[np.uint8]], interface: Interface, preprocessing: Preprocessing
) -> list[Feeds]:
    """Inputs by name: the first batch is what is captured with, further ones have other sizes where these are free.

    Args:
        images: RGB, (H, W, 3) each.
        interface: What goes in.
        preprocessing: How images are fitted; of the size that the network was trained at.
    """
    count = interface.batch or 2
    if interface.input == "image":
        return [
            repeat_image(image, interface, count if i == 0 or interface.batch else 1) for i, image in enumerate(images)
        ]
    groups = [[images[(start + i) % len(images)] for i in range(count)] for start in range(0, len(images), count)]
    batches = [
        fit_batch(group, interface, preprocessing, interface.size or _free_size(interface, preprocessing, 0))
        for group in groups
    ]
    if interface.size is None:
        batches.append(fit_batch(images[:1], interface, preprocessing, _free_size(interface, preprocessing, 1)))
    return batches


def _free_size(interface: Interface, preprocessing: Preprocessing, more: int) -> tuple[int, int]:
    """Height and width near the detector's own, ``more`` strides larger and in multiples of the stride; never equal."""
    steps = [-(-side // interface.stride) + more for side in sorted(preprocessing.size)]
    return steps[0] * interface.stride, (max(steps) + 1) * interface.stride


def repeat_image(image: NDArray[np.uint8], interface: Interface, count: int) -> Feeds:
    """Inputs ``image`` of one image, RGB (H, W, 3), at ``count`` places."""
    return {"images": np.repeat(image[None], count, axis=0), **_scores(interface, count)}


def _scores(interface: Interface, count: int) -> Feeds:
    is_taken = interface.threshold == "input"
    return {"score": np.full(count, interface.score, np.float32)} if is_taken else {}


def lay_in(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """How an image is laid into an input of the given size; that of ``keep_ratio`` would follow from the image."""
    return replace(
        preprocessing, size=size, fit="letterbox" if preprocessing.fit == "keep_ratio" else preprocessing.fit
    )


def fit_batch(
    images: Sequence[NDArray[np.uint8]], interface: Interface, preprocessing: Preprocessing, size: tuple[int, int]
) -> Feeds:
    """Images, RGB (H, W, 3) each, as inputs ``fitted`` or ``tensor`` of height and width ``size``."""
    laid = [fit_image(image, lay_in(preprocessing, size)) for image in images]
    fitted, sizes = np.stack([pixels for pixels, _ in laid]), [fit.size for _, fit in laid]
    feeds: dict[str, NDArray[Any]] = {"images": fitted}
    if interface.input == "scaled":
        feeds["images"] = np.ascontiguousarray(fitted.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    elif interface.input == "tensor":
        feeds["images"] = np.ascontiguousarray(normalize(preprocessing, fitted.transpose(0, 3, 1, 2), sizes))
    if interface.takes_sizes:
        feeds["sizes"] = np.array(sizes, np.int64)
    return {**feeds, **_scores(interface, len(images))}
