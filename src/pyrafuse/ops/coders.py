"""Raw outputs -> boxes."""

import torch
from torch import Tensor

from pyrafuse.core.predictions import GuidedPredictions

LARGEST_LOG = 20.0  # e^20 times an anchor is no box any more, and still far from float32's end


def guided_shapes(predictions: GuidedPredictions) -> Tensor:
    """Width and height (B, A, 2) in pixels of the guided anchors."""
    return predictions.grid.shapes * predictions.guides.clamp(max=LARGEST_LOG).exp()


def decode_guided(predictions: GuidedPredictions) -> Tensor:
    """Boxes (B, A, 4), xyxy in pixels: the centre in or near its cell, the size relative to the guided anchor."""
    grid = predictions.grid
    return _decode(predictions.deltas, guided_shapes(predictions), grid.cells, grid.strides, grid.reach)


def decode_rows(predictions: GuidedPredictions, rows: Tensor) -> Tensor:
    """`decode_guided` of ``rows`` (B, C) alone: boxes (B, C, 4)."""
    grid = predictions.grid
    pick = rows[..., None].expand(-1, -1, 4)
    deltas, guides = predictions.deltas.gather(1, pick), predictions.guides.gather(1, pick[..., :2])
    shapes = grid.shapes[rows] * guides.clamp(max=LARGEST_LOG).exp()
    return _decode(deltas, shapes, grid.cells[rows], grid.strides[rows], grid.reach)


def _decode(deltas: Tensor, shapes: Tensor, cells: Tensor, strides: Tensor, reach: float) -> Tensor:
    inside = deltas[..., :2].sigmoid()
    if reach:
        inside = (inside - 0.5) * (1 + 2 * reach) + 0.5
    centers = (inside + cells) * strides[..., None]
    halves = deltas[..., 2:].clamp(max=LARGEST_LOG).exp() * shapes / 2
    return torch.cat((centers - halves, centers + halves), dim=-1)
