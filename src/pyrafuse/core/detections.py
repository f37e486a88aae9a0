"""What was found in one image."""

import json
import os
from dataclasses import dataclass, replace
from io import BytesIO
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from pyrafuse.core.captions import draw_boxes
from pyrafuse.core.errors import PyrafuseError
from pyrafuse.core.storage import write_atomically, write_text

if TYPE_CHECKING:
    import supervision

PALETTE = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075",
    "#f032e6", "#469990", "#b8860b", "#2f4f4f", "#c71585", "#006400", "#8b008b", "#556b2f", "#b22222", "#483d8b",
)  # fmt: skip
"""One colour a class, dark enough for white text; classes past the end begin anew."""

MAX_SIDE_PX = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
"""Of pictures that can be written so; a PNG may be of any size."""


@dataclass(frozen=True)
class Detections:
    """The N objects found in one image, best first.

    Attributes:
        boxes: (N, 4) float32, xyxy in pixels: of the network's input from `Detector.detect`, of the image itself from
            `Detector.predict`.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64, 0..K-1.
        levels: (N,) int64, the pyramid level each one came from, 0 the finest.
        names: Name of each class; empty when the detector has none.
        image_size: Height and width of the image that ``boxes`` refer to, in pixels.
        source: Where the image came from: a path, a URL, or ``video.mp4#12`` for a frame.
        image: The image itself as (3, H, W) uint8, where it was kept.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    levels: Tensor
    names: tuple[str, ...] = ()
    image_size: tuple[int, int] = (0, 0)
    source: str = ""
    image: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> "Detections":
        """The detections of ``rows``: a slice, a mask or indices."""
        return replace(
            self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], levels=self.levels[rows]
        )

    def is_visible(self) -> Tensor:
        """(N,) whether any of the box lies within the image; not so of one without area."""
        boxes = self._clip_boxes()
        return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)

    def clip(self) -> "Detections":
        """The visible ones, cut at the edges of the image."""
        return replace(self, boxes=self._clip_boxes())[self.is_visible()]

    def _clip_boxes(self) -> Tensor:
        height, width = self.image_size
        return self.boxes.clamp(min=0).minimum(self.boxes.new_tensor((width, height, width, height)))

    def cpu(self) -> "Detections":
        """The same detections in main memory."""
        return replace(
            self, boxes=self.boxes.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu(), levels=self.levels.cpu()
        )

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
        """The same as `supervision.Detections` (needs the extra ``supervision``)."""
        try:
            import supervision
        except ImportError as error:
            raise PyrafuseError("to_supervision() needs supervision: pip install 'pyrafuse[supervision]'") from error
        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy().reshape(-1, 4),
            confidence=self.scores.cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            data={"class_name": [self.name_of(label) for label in self.labels.tolist()]},
        )

    def draw(self, image: Tensor | None = None) -> Tensor:
        """Draw boxes, names and scores on ``image`` (3, H, W) uint8, by default the one that was kept.

        Where objects crowd, the score stands alone and a legend names the colours: see `draw_boxes`.

        Raises:
            PyrafuseError: If no image is given and none was kept.
        """
        image = self.image if image is None else image
        if image is None:
            raise PyrafuseError(
                "these detections keep no image: give it to draw(image), or take those of Detector.predict, which keep "
                "theirs"
            )
        if not len(self):
            return image.clone()
        labels = self.labels.tolist()
        return draw_boxes(
            image,
            self.boxes,
            names=[self.name_of(label) for label in labels],
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
            picture: Image.Image = to_pil_image(self.draw())
            if max(picture.size) > MAX_SIDE_PX.get(suffix, inf):
                raise PyrafuseError(
                    f"cannot write {path}: {picture.width} x {picture.height} pixels, and {suffix} ends at "
                    f"{MAX_SIDE_PX[suffix]}; save it as .png"
                )
            encoded = BytesIO()  # into a file Pillow writes past Python, and overlooks that the disk is full
            picture.save(encoded, format={"jpg": "jpeg"}.get(suffix[1:], suffix[1:]), quality=92)
            with write_atomically(path) as stream:
                stream.write(encoded.getvalue())
        else:
            raise PyrafuseError(
                f"cannot save detections as {suffix or 'a file without suffix'}: .jpg, .png, .webp, .json or .txt"
            )


def no_detections(device: torch.device | str = "cpu") -> Detections:
    """Detections of an image in which nothing was found."""
    empty = torch.zeros(0, device=device)
    return Detections(empty.view(0, 4), empty, empty.long(), empty.long())
