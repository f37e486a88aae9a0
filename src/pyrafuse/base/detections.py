"""What was found in one image."""

import base64
import html
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.arrays import Array, copy_array, to_numpy
from pyrafuse.base.boxes import clip_boxes
from pyrafuse.base.captions import draw_boxes
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.pictures import save_picture, to_pillow
from pyrafuse.base.printable import printable
from pyrafuse.base.writing import write_text

if TYPE_CHECKING:
    import supervision

PALETTE = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075",
    "#f032e6", "#469990", "#b8860b", "#2f4f4f", "#c71585", "#006400", "#8b008b", "#556b2f", "#b22222", "#483d8b",
)  # fmt: skip
"""One colour a class, dark enough for white text; classes past the end begin anew."""


SHOWN_ROWS = 20
"""So many detections are listed in a notebook's cell."""

SHOWN_SIDE_PX = 960
"""Longer pictures are reduced to this in a notebook's cell."""


class Arrays(NamedTuple):
    """Detections as numpy arrays: ``boxes, scores, labels, levels = detections.numpy()``.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 class indices.
        levels: (N,) int64.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    levels: NDArray[np.int64]


@dataclass(frozen=True)
class Detection:
    """One object that was found.

    Attributes:
        name: Name of its class, or the class's number.
        score: Score in 0..1.
        box: xyxy in pixels.
        label: Class index, 0..K-1.
        level: The pyramid level it came from, 0 the finest.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int
    level: int


@dataclass(frozen=True, repr=False)
class Detections:
    """The N objects found in one image, best first; iterating gives each one as a `Detection`.

    The arrays are torch tensors, or numpy arrays where a detector runs without torch; methods give the same kind back.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels: of the network's input from `Detector.detect`, of the image itself from
            `Detector.predict`.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64, 0..K-1.
        levels: (N,) int64, the pyramid level each one came from, 0 the finest.
        names: Name of each class; empty when the detector has none.
        image_size: Height and width of the image that ``boxes`` refer to, in pixels.
        source: Source of the image: a path, a URL, or ``video.mp4#12`` for a frame.
        image: The image itself as (3, H, W) uint8, where it was kept.
        rows: (N,) int64, the row of the candidates that each one was; of a two-stage detector, the proposal's rank.
            None for detections that no detector made.
    """

    boxes: Array
    scores: Array
    labels: Array
    levels: Array
    names: tuple[str, ...] = ()
    image_size: tuple[int, int] = (0, 0)
    source: str = ""
    image: Array | None = None
    rows: Array | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        columns = (self.scores.tolist(), self.boxes.tolist(), self.labels.tolist(), self.levels.tolist())
        for score, (x1, y1, x2, y2), label, level in zip(*columns, strict=True):
            yield Detection(self.name_of(label), score, (x1, y1, x2, y2), label, level)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {printable(name, limit=40)}" for name, count in self.count().items())
        return f"<{len(self)} detections{f': {counts}' if counts else ''} in {printable(self.source) or 'an image'}>"

    def __getitem__(self, rows: Any) -> "Detections":
        """The detections of ``rows``: a slice, a mask, indices, or one index, which gives one detection in a row."""
        if isinstance(rows, np.ndarray):
            rows = rows.tolist()
        if isinstance(rows, int) and not isinstance(rows, bool):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"no detection {rows}: there are {len(self)}")
            rows = [rows]
        return self._map(lambda values: values[rows])

    def is_visible(self) -> Array:
        """(N,) whether any of the box lies within the image; not so of one without area."""
        boxes = clip_boxes(self.boxes, self.image_size)
        return (boxes[:, 2:] > boxes[:, :2]).all(1)

    def clip(self) -> "Detections":
        """The visible ones, cut at the edges of the image."""
        return replace(self, boxes=clip_boxes(self.boxes, self.image_size))[self.is_visible()]

    def cpu(self) -> "Detections":
        """The same detections in main memory."""
        return self if isinstance(self.boxes, np.ndarray) else self._map(lambda values: values.cpu())

    def _map(self, change: Callable[[Array], Array]) -> "Detections":
        """The same with ``change`` done to each column of N."""
        columns = {name: getattr(self, name) for name in ("boxes", "scores", "labels", "levels", "rows")}
        return replace(self, **{name: change(column) for name, column in columns.items() if column is not None})

    @property
    def xyxy(self) -> Array:
        """The boxes, as others call them: (N, 4) float32, xyxy in pixels."""
        return self.boxes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of the class of each detection, or its number."""
        return tuple(map(self.name_of, self.labels.tolist()))

    def count(self) -> dict[str, int]:
        """How many were found of each class, the most frequent first."""
        return dict(Counter(self.class_names).most_common())

    def numpy(self) -> Arrays:
        """Boxes, scores, labels and levels as numpy arrays."""
        boxes, scores, labels, levels = map(to_numpy, (self.boxes, self.scores, self.labels, self.levels))
        return Arrays(boxes.reshape(-1, 4), scores, labels, levels)

    def crop(self, image: Array | None = None, *, margin: float = 0.0) -> tuple[Array, ...]:
        """Cut every box out of ``image`` (3, H, W) uint8, by default out of the one that was kept.

        Args:
            image: Where to cut.
            margin: Share of a box's width and height that is added to each of its sides.

        Returns:
            A (3, h, w) copy for each detection, of whole pixels; at least one pixel of those at the border.

        Raises:
            PyrafuseError: If no image is given and none was kept.
        """
        pixels = self._image_or(image, "crop")
        height, width = pixels.shape[-2:]
        boxes = to_numpy(self.boxes)
        added = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * np.asarray((-1, -1, 1, 1), boxes.dtype) * margin
        cut = []
        for x1, y1, x2, y2 in (boxes + added).tolist():
            left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
            right, bottom = max(min(math.ceil(x2), width), left + 1), max(min(math.ceil(y2), height), top + 1)
            cut.append(copy_array(pixels[:, top:bottom, left:right]))
        return tuple(cut)

    def _image_or(self, image: Array | None, use: str) -> Array:
        image = self.image if image is None else image
        if image is None:
            raise PyrafuseError(
                f"these detections keep no image: give it to {use}(image), or predict with keep_images=True"
            )
        return image

    def _repr_html_(self) -> str:
        """What a notebook shows: the drawn picture where it was kept, and the first `SHOWN_ROWS` in a table."""
        rows = [
            f"<tr><td>{html.escape(printable(d.name, limit=60))}</td><td>{d.score:.3f}</td>"
            f"<td>{', '.join(f'{v:.0f}' for v in d.box)}</td></tr>"
            for d in self[:SHOWN_ROWS]
        ]
        more = f"<p>and {len(self) - SHOWN_ROWS} more</p>" if len(self) > SHOWN_ROWS else ""
        head = "<tr><th>class</th><th>score</th><th>box, xyxy in px</th></tr>"
        table = f"<table>{head}{''.join(rows)}</table>" if rows else ""
        picture = ""
        if self.image is not None:
            drawn = to_pillow(self.draw())
            drawn.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
            encoded = BytesIO()
            drawn.save(encoded, format="png")
            picture = f'<img alt="" src="data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}">'
        return f"<p>{html.escape(repr(self))}</p>{picture}{table}{more}"

    def name_of(self, label: int) -> str:
        """The name of class ``label``, or its number."""
        return self.names[label] if label < len(self.names) else str(label)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; boxes are xyxy in pixels."""
        return {
            "source": self.source,
            "height": self.image_size[0],
            "width": self.image_size[1],
            "objects": [
                {"label": label, "name": self.name_of(label), "score": score, "box_xyxy": box, "level": level}
                for label, score, box, level in zip(
                    self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), self.levels.tolist(), strict=True
                )
            ],
        }

    def to_yolo(self) -> str:
        """One line an object: class, centre x, centre y, width, height (all 0..1), score."""
        height, width = self.image_size
        lines = []
        for label, score, (x1, y1, x2, y2) in zip(
            self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True
        ):
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            lines.append(" ".join([str(label), *(f"{v:.6f}" for v in values)]))
        return "\n".join(lines) + ("\n" if lines else "")

    def to_supervision(self) -> "supervision.Detections":
        """The same as `supervision.Detections`, with ``class_name`` in its data (needs the extra ``supervision``)."""
        try:
            import supervision
        except ImportError as error:
            raise PyrafuseError("to_supervision() needs supervision: pip install 'pyrafuse[supervision]'") from error
        return supervision.Detections(
            xyxy=to_numpy(self.boxes).reshape(-1, 4),
            confidence=to_numpy(self.scores),
            class_id=to_numpy(self.labels),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )

    def draw(self, image: Array | None = None) -> Array:
        """Draw boxes, names and scores on ``image`` (3, H, W) uint8, by default the one that was kept.

        Where objects crowd, the score stands alone and a legend names the colours: see `draw_boxes`.

        Raises:
            PyrafuseError: If no image is given and none was kept.
        """
        image = self._image_or(image, "draw")
        if not len(self):
            return copy_array(image)
        labels = self.labels.tolist()
        return draw_boxes(
            image,
            self.boxes,
            names=[printable(name, limit=60) for name in self.class_names],
            marks=[f"{score:.2f}" for score in self.scores.tolist()],
            colors=[PALETTE[label % len(PALETTE)] for label in labels],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to ``path``: a drawn picture (.jpg, .png, .webp), JSON (.json) or YOLO text (.txt).

        Raises:
            PyrafuseError: If the suffix is another one, no image was kept to draw on, the picture is larger than such
                a file can be, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            write_text(path, json.dumps(self.to_dict(), indent=1))
        elif suffix == ".txt":
            write_text(path, self.to_yolo())
        elif suffix in {".jpg", ".jpeg", ".png", ".webp"}:
            save_picture(self.draw(), path)
        else:
            raise PyrafuseError(
                f"cannot save detections as {suffix or 'a file without suffix'}: .jpg, .png, .webp, .json or .txt"
            )
