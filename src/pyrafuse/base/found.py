"""Detections as they are asked for: one image at a time, and the source closed when the asking ends."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, NoReturn, Self

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.sources import Frame

PREDICT_REMARKS = {
    "save": "found.save(PATH) writes one image's, pyrafuse.inference.predicting.predict_to a whole source's",
    "save_txt": "found.save('a.txt') writes YOLO's text for one image",
    "stream": "it always gives the detections of one image after the other; leave it out",
    "source": "the source is the first argument",
    "show": "found.draw() gives the drawn picture, and found in a notebook's cell shows it",
    "verbose": "it prints nothing; leave it out",
    "half": "use torch.autocast around it",
}
"""What `Detector.predict` answers to keywords that it has no counterpart of."""


class Found(Iterator[Detections]):
    """The detections of image after image; the next images are read while the detector works.

    The source is closed at its end, when a loop over it is left, and upon `close`, which leaving a ``with`` block calls
    too: a camera is free again. ``list(...)`` gives all of a finite source.
    """

    def __init__(self, found: Generator[Detections, None, None]) -> None:
        self._found = found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Detections:
        return next(self._found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, rank: Any) -> NoReturn:
        raise TypeError(
            "predict() gives the detections of one image after the other: loop over it, take next(...) for one image "
            f"or list(...)[{rank!r}] for one of several"
        )

    def close(self) -> None:
        """End: nothing more is read, and the source is closed."""
        self._found.close()


def require_readable(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, until one that cannot be read.

    Raises:
        DataError: With what was wrong with it.
    """
    for frame in frames:
        if frame.error:
            raise DataError(frame.error)
        yield frame


def only_one(found: Found) -> Detections:
    """The detections of a source that is one image.

    Raises:
        PyrafuseError: If it has several images, or none.
    """
    with found:
        first = next(found, None)
        if first is None or next(found, None) is not None:
            many = "no image" if first is None else "several images"
            raise PyrafuseError(
                f"a detector is called with one image, and the source has {many}: loop over detector.predict(source)"
            )
    return first
