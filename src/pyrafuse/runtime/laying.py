"""Images as an exported file takes them: images (H, W, 3) -> inputs by name, and how each image was laid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.exported import Interface
from pyrafuse.base.images.fitting import Fit, fit_image
from pyrafuse.base.images.normalizing import normalize
from pyrafuse.base.preprocessing import Preprocessing


@dataclass(frozen=True)
class Laid:
    """A batch as the file takes it.

    Attributes:
        feeds: Inputs by name; there may be more images than were given, where the file takes a fixed number.
        fits: How each image was laid; the way back to its own pixels.
    """

    feeds: dict[str, NDArray[Any]]
    fits: tuple[Fit, ...]


def lay(images: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing, interface: Interface) -> Laid:
    """Make images ready for a file; where it takes them as they are, they are of one size.

    Raises:
        PyrafuseError: If an image does not fit into the file's fixed size.
    """
    if interface.input == "image":
        fits = tuple(Fit(1.0, 1.0, image.shape[0], image.shape[1]) for image in images)
        return Laid({"images": _fill_up(np.stack(images), interface.batch)}, fits)
    fitted, fits = zip(*(fit_image(image, preprocessing) for image in images), strict=True)
    batch = _fill_up(_stack(fitted, interface.size), interface.batch)
    sizes = _fill_up(np.array([fit.size for fit in fits], np.int64), interface.batch)
    if interface.input == "scaled":
        batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    elif interface.input == "tensor":
        channels_first = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        batch = np.ascontiguousarray(normalize(preprocessing, channels_first, sizes.tolist()))
    return Laid({"images": batch, "sizes": sizes} if interface.takes_sizes else {"images": batch}, fits)


def _stack(images: Sequence[NDArray[np.uint8]], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Fitted images (h, w, 3) as one batch of ``size``, by default of the largest; at the top left, over black."""
    largest = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    height, width = size or largest
    if largest[0] > height or largest[1] > width:
        raise PyrafuseError(
            f"an image needs {largest[0]} x {largest[1]} pixels of the network's input, and the file takes {height} x "
            f"{width}: export it with free sizes"
        )
    batch = np.zeros((len(images), height, width, 3), np.uint8)
    for place, image in zip(batch, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return batch


def _fill_up(batch: NDArray[Any], count: int) -> NDArray[Any]:
    """The batch with its last row repeated until there are ``count``."""
    missing = count - len(batch)
    return np.concatenate([batch, batch[-1:].repeat(missing, axis=0)]) if missing > 0 else batch
