"""What is done with boxes whether they lie in arrays or in tensors; of torch nothing is needed here."""

from typing import Any, TypeVar

from pyrafuse.base.arrays import Array, floats_like

Boxes = TypeVar("Boxes")
"""An array of numpy or a tensor of torch."""


def clip_boxes(boxes: Boxes, size: tuple[Any, Any]) -> Boxes:
    """Boxes (..., 4) xyxy cut at the edges of an image.

    Args:
        boxes: An array or a tensor, which stays as it is.
        size: Height and width in pixels: numbers, or arrays (..., 1) of those of each box's image.
    """
    height, width = size
    given: Any = boxes
    clipped = given + 0  # a copy
    clipped[..., 0::2] = given[..., 0::2].clip(0, width)
    clipped[..., 1::2] = given[..., 1::2].clip(0, height)
    return clipped


def scale_boxes(boxes: Array, scale_x: float, scale_y: float) -> Array:
    """Boxes (N, 4) xyxy of floats, times a factor along each axis."""
    return boxes * floats_like(boxes, (scale_x, scale_y, scale_x, scale_y))
