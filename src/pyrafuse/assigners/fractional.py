"""Anchors and objects compared in sides of the input, as M2Det's code compares them.

Zhao et al., "M2Det", arXiv:1811.04533. An object inside of several anchors of one shape overlaps them all alike, and
the last bit decides which one is matched to it: here it is that of the released code, which counts so.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.assignment import Assignment
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.anchors import lay_anchors


class FractionalAssigner:
    """Assign by the IoU of anchors and objects, both as fractions of a square input.

    Args:
        assigner: What assigns them.
        size: Side of the input in pixels.
        shapes: Width and height (S, 2) of each level's anchors, in sides of the input.
        steps: Pixels between neighbouring anchors of each level.
    """

    def __init__(
        self, assigner: MaxIoUAssigner, *, size: int, shapes: Sequence[Tensor], steps: Sequence[float]
    ) -> None:
        self.assigner = assigner
        self.size = size
        self.shapes = tuple(shapes)
        self.steps = tuple(steps)

    def __call__(self, predictions: DensePredictions, targets: Targets) -> Assignment:
        device = targets.boxes.device
        levels = zip(self.shapes, predictions.grid.sizes, self.steps, strict=True)
        anchors = [
            lay_anchors(shapes.to(device), cells, step / self.size, offset=0.5) for shapes, cells, step in levels
        ]
        return self.assigner.assign(torch.cat(anchors), replace(targets, boxes=targets.boxes / self.size))


@ASSIGNERS.register("fractional", parts={"assigner": ASSIGNERS})
def fractional(*, head: Any, assigner: MaxIoUAssigner) -> FractionalAssigner:
    """A `FractionalAssigner` of the anchors of M2Det's ``head``.

    Args:
        head: Made by `pyrafuse.heads.multibox.m2det_head`.
        assigner: What assigns them.
    """
    return FractionalAssigner(assigner, size=head.made_for, shapes=head.shares, steps=head.steps)
