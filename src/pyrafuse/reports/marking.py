"""What became of each box of an image, as colours: marks -> picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.captions import draw_boxes
from pyrafuse.evaluation.result import CROWD, FALSE, MISSED, RIGHT, WRONG_CLASS, Mark

COLORS = {RIGHT: "#1672c9", FALSE: "#c74300", MISSED: "#8a0f55", WRONG_CLASS: "#008060", CROWD: "#57606a"}
"""Blue, orange, purple, teal, grey: dark enough for white letters, apart where red and green look alike."""


def draw_marks(pixels: NDArray[np.uint8], marks: Sequence[Mark], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the boxes on an image (H, W, 3); mistakes have a caption, what is right has none and covers nothing."""
    image = pixels.transpose(2, 0, 1)
    for are_right in (True, False):  # mistakes lie above
        drawn = [mark for mark in marks if (mark.kind == RIGHT) is are_right]
        if drawn:
            image = draw_boxes(
                image,
                np.array([mark.box for mark in drawn], np.float32),
                names=["" if are_right else names[mark.label] for mark in drawn],
                marks=[_remark(mark) for mark in drawn],
                colors=[COLORS[mark.kind] for mark in drawn],
            )
    return image.transpose(1, 2, 0)


def _remark(mark: Mark) -> str:
    if mark.kind == RIGHT:
        return ""
    return f"{mark.score:.2f}" if mark.score is not None else "(crowd)" if mark.kind == CROWD else ""
