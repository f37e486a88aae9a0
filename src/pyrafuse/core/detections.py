"""Detections in tensors."""

import torch

from pyrafuse.base.detections import Detections


def no_detections(device: torch.device | str = "cpu") -> Detections:
    """Detections of an image in which nothing was found."""
    empty = torch.zeros(0, device=device)
    return Detections(empty.view(0, 4), empty, empty.long(), empty.long())
