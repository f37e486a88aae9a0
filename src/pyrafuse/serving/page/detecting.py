"""One image under detectors: file -> pixels -> detections -> picture; and what was fused for one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.captions import draw_boxes
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.images.reading import read_picture
from pyrafuse.base.images.sources import Frame
from pyrafuse.base.printable import counted, printable
from pyrafuse.explain.fusion import explain_image
from pyrafuse.models.detector import Detector
from pyrafuse.runtime.detector import ExportedDetector
from pyrafuse.serving.batching import Choice
from pyrafuse.serving.service import Service
from pyrafuse.visualization.explanations import draw_cams, draw_fusion
from pyrafuse.visualization.figures import encode_figure

LEAST_SCORE = 0.05
"""Detections that score less are not asked for: the slider begins here."""

INKS = ("#c81e1e", "#15803d", "#1d4ed8", "#8f5a00", "#a21caf", "#0e7490", "#c2410c")
"""One colour a pyramid level, finest first: those of the figures, dark enough for white letters."""


@dataclass(frozen=True)
class Seen:
    """An image file and what a detector found in it: a tab keeps this, and not the pixels.

    Attributes:
        path: Path of the file.
        model: Name of the detector.
        found: All detections of `LEAST_SCORE` or more, best first.
        strides: Pixels a cell of each level; empty where that is not known.
    """

    path: str
    model: str
    found: Detections
    strides: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.path).name

    def above(self, score: float) -> Detections:
        """The detections of ``score`` or more."""
        return self.found[: int((to_numpy(self.found.scores) >= score).sum())]

    def level_of(self, level: int) -> str:
        """``stride 8``; of an exported file ``level 0``."""
        return f"stride {self.strides[level]}" if level < len(self.strides) else f"level {level}"


def read_upload(path: str, *, max_bytes: int, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an image file that was uploaded.

    Raises:
        DataError: If it is no image, damaged, larger than is allowed, or deleted; the message knows its name alone.
    """
    if not Path(path).is_file():
        raise DataError(f"{printable(Path(path).name)} is not kept any more: drop it again")
    data = Path(path).read_bytes()
    if len(data) > max_bytes:
        raise DataError(f"{printable(Path(path).name)} has {len(data):,} bytes; {max_bytes:,} are read at most")
    return read_picture(Path(path).name, data=data, max_pixels=max_pixels).pixels


def look(service: Service, model: str, path: str, pixels: NDArray[np.uint8]) -> Seen:
    """What ``model`` finds in ``pixels``, which are those of the file at ``path``.

    Raises:
        PyrafuseError: If the detector cannot be run.
        TimeoutError: If it takes longer than the server's limit.
    """
    batcher = service.batchers[model]
    detector, least = batcher.detector, LEAST_SCORE
    if isinstance(detector, ExportedDetector):
        own = detector.interface
        least = own.score if own.threshold == "fixed" else max(least, own.score)
    found = batcher.detect(pixels, Choice(least)).result(service.limits.seconds).cpu()
    strides = detector.neck.features.strides if isinstance(detector, Detector) else ()
    return Seen(path, model, found, strides)


def draw(seen: Seen, pixels: NDArray[np.uint8], score: float) -> NDArray[np.uint8]:
    """The image (H, W, 3) with its detections of ``score`` or more, in the colour of the level that each came from."""
    found = seen.above(score)
    if not len(found):
        return pixels
    levels = found.levels.tolist()
    drawn = draw_boxes(
        np.ascontiguousarray(pixels.transpose(2, 0, 1)),
        found.boxes,
        names=[printable(name, limit=60) for name in found.class_names],
        marks=[f"{each:.2f}" for each in found.scores.tolist()],
        colors=[INKS[level % len(INKS)] for level in levels],
    )
    return np.ascontiguousarray(to_numpy(drawn).transpose(1, 2, 0))


def tell(seen: Seen, score: float) -> str:
    """How many were found, and by which levels, in HTML with the colours of the picture."""
    levels = seen.above(score).levels.tolist()
    counts = [(level, levels.count(level)) for level in sorted(set(levels))]
    keys = [
        f'<span style="white-space:nowrap"><span style="color:{INKS[level % len(INKS)]}">&#9632;</span> '
        f"{seen.level_of(level)}: {count}</span>"
        for level, count in counts
    ]
    head = f"{counted(len(levels), 'detection')} of score {score:.2f} or more"
    if not levels and len(seen.found):
        head += f"; the best has {seen.found.scores.tolist()[0]:.2f}"
    return " &nbsp; ".join([head, *keys])


def table(seen: Seen, score: float) -> list[list[str | float]]:
    """A row a detection: class, score, level, and the corners of its box in pixels."""
    return [
        [printable(d.name, limit=60), round(d.score, 3), seen.level_of(d.level), *map(round, d.box)]
        for d in seen.above(score)
    ]


def find_at(found: Detections, x: float, y: float) -> int | None:
    """The row of the smallest box around the point; None where there is none."""
    boxes = to_numpy(found.boxes).reshape(-1, 4)
    inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
    areas = np.where(inside, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.inf)
    return int(areas.argmin()) if inside.any() else None


def explain(service: Service, seen: Seen, pixels: NDArray[np.uint8], row: int) -> tuple[bytes, bytes | None]:
    """Pictures as PNG of what was fused for detection ``row``, and of where its class and box look.

    Raises:
        PyrafuseError: If the detector is an exported file, which shows nothing of its inside.
    """
    batcher = service.batchers[seen.model]
    detector = batcher.detector
    if not isinstance(detector, Detector):
        raise PyrafuseError(f"{seen.model} is an exported file, which shows nothing of its inside: load its checkpoint")
    box: Sequence[float] = seen.found.boxes[row].tolist()
    explanation = batcher.call(
        lambda: explain_image(detector, Frame(seen.name, pixels), score=LEAST_SCORE, only=box)
    ).result(4 * service.limits.seconds)
    cams = draw_cams(explanation)
    return encode_figure(draw_fusion(explanation), dpi=110), None if cams is None else encode_figure(cams, dpi=110)
