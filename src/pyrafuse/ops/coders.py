"""Raw outputs -> boxes, and boxes -> what the outputs should have been."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.ops.boxes import centers_and_sizes

LARGEST_DELTA = math.log(1000 / 16)  # a box of 1000 px out of an anchor of 16
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


class BoxCoder(Protocol):
    """Between boxes (..., 4), xyxy in pixels, and the four numbers that a head predicts beside its anchor."""

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor: ...

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class DeltaCoder:
    """Shift of the centre in sides of the anchor, and log of the ratio of the sides (R-CNN, arXiv:1311.2524, sec. C).

    Attributes:
        stds: What each of the four is divided by when it is encoded.
        largest_log: Bound of the decoded log ratio, on both sides.
        center_clamp: Bound in pixels of the decoded shift (YOLOF, arXiv:2103.09460); the log ratio then has no
            lower one.
    """

    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    largest_log: float = LARGEST_DELTA
    center_clamp: float | None = None

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (..., 4) of ``boxes``; a side below 1e-6 px counts as one, so that its log is finite."""
        centers, sizes = centers_and_sizes(anchors)
        wanted_centers, wanted_sizes = centers_and_sizes(boxes)
        sizes = sizes.clamp(min=1e-6)
        shift = (wanted_centers - centers) / sizes
        return torch.cat((shift, (wanted_sizes.clamp(min=1e-6) / sizes).log()), dim=-1) / self._stds(shift)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (..., 4) of ``deltas`` (..., 4), not clipped to the image."""
        deltas = deltas * self._stds(deltas)
        centers, sizes = centers_and_sizes(anchors)
        shift = deltas[..., :2] * sizes
        if self.center_clamp is None:
            logs = deltas[..., 2:].clamp(-self.largest_log, self.largest_log)
        else:
            shift = shift.clamp(-self.center_clamp, self.center_clamp)
            logs = deltas[..., 2:].clamp(max=self.largest_log)
        centers, halves = centers + shift, sizes * logs.exp() * 0.5
        return torch.cat((centers - halves, centers + halves), dim=-1)

    def _stds(self, like: Tensor) -> Tensor:
        # non-blocking: a plain copy would make the host wait for the device
        return torch.tensor(self.stds, dtype=like.dtype).to(like.device, non_blocking=True)


@dataclass(frozen=True)
class DistanceCoder:
    """Distances in pixels from the anchor's centre to the left, top, right and bottom sides (FCOS, arXiv:1904.01355).

    Attributes:
        largest: Bound of an encoded distance, less 0.1 px, for heads that predict a distribution up to it.
    """

    largest: float | None = None

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Distances (..., 4); negative where the centre lies outside the box, unless ``largest`` bounds them."""
        centers, _ = centers_and_sizes(anchors)
        distances = torch.cat((centers - boxes[..., :2], boxes[..., 2:] - centers), dim=-1)
        return distances if self.largest is None else distances.clamp(0, self.largest - 0.1)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (..., 4) of distances (..., 4), not clipped to the image."""
        centers, _ = centers_and_sizes(anchors)
        return torch.cat((centers - deltas[..., :2], centers + deltas[..., 2:]), dim=-1)


def guide_anchors(anchors: Tensor, shapes: Tensor) -> Tensor:
    """Boxes (..., 4) around the centres of ``anchors``, their sides stretched by exp of ``shapes`` (..., 2)."""
    deltas = torch.cat((torch.zeros_like(shapes), shapes), dim=-1)
    return DeltaCoder(largest_log=-math.log(1e-6)).decode(anchors, deltas)
