"""All losses by name; those of boxes compare either deltas or, where they are marked so, boxes in pixels."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from pyrafuse.base.registry import Registry

Loss = Callable[..., Tensor]
Marked = TypeVar("Marked", bound=Loss)

LOSSES: Registry[Tensor] = Registry("loss", "pyrafuse.losses", functions=True)

_OF_BOXES: set[Any] = set()


def of_boxes(loss: Marked) -> Marked:
    """Mark ``loss`` as one that compares boxes (..., 4), xyxy in pixels, and not what a head says of them."""
    _OF_BOXES.add(loss)
    return loss


def is_of_boxes(loss: Loss) -> bool:
    """Whether ``loss``, or what its options were bound to, is marked by `of_boxes`."""
    return getattr(loss, "func", loss) in _OF_BOXES
