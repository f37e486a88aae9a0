"""Raw outputs -> boxes."""

import torch
from torch import Tensor

from pyrafuse.core.predictions import GuidedPredictions

LARGEST_LOG = 20.0  # e^20 times an anchor is no box any more, and still far from float32's end


def guided_shapes(predictions: GuidedPredictions) -> Tensor:
    """Width and height (B, A, 2) in pixels of the guided anchors."""
    return predictions.grid.shapes * predictions.guides.clamp(max=LARGEST_LOG).exp()


def decode_guided(predictions: GuidedPredictions) -> Tensor:
    """Boxes (B, A, 4), xyxy in pixels: the centre inside its cell, the size relative to the guided anchor."""
    grid = predictions.grid
    centers = (predictions.deltas[..., :2].sigmoid() + grid.cells) * grid.strides[:, None]
    halves = predictions.deltas[..., 2:].clamp(max=LARGEST_LOG).exp() * guided_shapes(predictions) / 2
    return torch.cat((centers - halves, centers + halves), dim=-1)
