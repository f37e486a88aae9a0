"""Images of a data set: read, and refused where the annotation is of another size."""

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.errors import DataError
from pyrafuse.base.images.reading import read_image
from pyrafuse.base.records import ImageRecord, Window


class LoadingError(DataError):
    """An image that failed while batches were made.

    A `DataLoader` raises a worker's exception anew, with the worker's traceback as its text: here only the message
    is kept of it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def read_record(record: ImageRecord) -> NDArray[np.uint8]:
    """Read the image of ``record``, or the tile that it is, as (height, width, 3) uint8 RGB.

    Raises:
        LoadingError: If it cannot be read, or has another size than its annotation says.
    """
    try:
        image = read_image(record.path)
    except DataError as error:
        raise LoadingError(str(error)) from error
    height, width = image.shape[:2]
    window = record.window or Window(0, 0, record.width, record.height)
    if (height, width) != (window.height, window.width):
        raise LoadingError(
            f"{record.path} has {width} x {height} pixels, its annotation says {window.width} x {window.height}; "
            "correct the annotation or replace the image"
        )
    if record.window is None:
        return image
    # a copy: a tile that is kept would keep the whole image
    return image[window.top : window.top + record.height, window.left : window.left + record.width].copy()
