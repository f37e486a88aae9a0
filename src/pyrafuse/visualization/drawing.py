"""Boxes on images: what was found beside what is there."""

import torch
from torch import Tensor

from pyrafuse.base.captions import draw_boxes
from pyrafuse.base.detections import PALETTE, Detections
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.records import ImageRecord

_GAP = 8  # pixels between the two pictures


def draw_ground_truth_beside(detections: Detections, record: ImageRecord) -> Tensor:
    """The image twice: what was found at the left, the objects of ``record`` at the right, one colour a class.

    Args:
        detections: With the image kept, boxes in its pixels.
        record: The objects of that image.

    Returns:
        (3, H, 2 W + 8) uint8.

    Raises:
        PyrafuseError: If the detections keep no image, or one of another size than the record's.
    """
    found = detections.draw()
    assert detections.image is not None  # or draw() had raised
    image = detections.image.cpu()
    height, width = image.shape[-2:]
    if (width, height) != (record.width, record.height):
        raise PyrafuseError(
            f"{record.path} is {record.width}x{record.height} pixels but the detections' image is {width}x{height}: "
            "give the detections and the record of one image"
        )
    gap = torch.full((3, height, _GAP), 255, dtype=torch.uint8)
    return torch.cat([found.cpu(), gap, draw_objects(image, record, detections.names)], dim=2)


def draw_objects(image: Tensor, record: ImageRecord, names: tuple[str, ...] = ()) -> Tensor:
    """Draw the objects of ``record`` with their class on ``image`` (3, H, W) uint8."""
    if not len(record.labels):
        return image.clone()
    labels = record.labels.tolist()
    return draw_boxes(
        image,
        torch.from_numpy(record.boxes.copy()),
        names=[names[label] if label < len(names) else str(label) for label in labels],
        marks=["(crowd)" if crowd else "" for crowd in record.crowd.tolist()],
        colors=[PALETTE[label % len(PALETTE)] for label in labels],
    )
