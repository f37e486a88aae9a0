"""FCOS's head: no anchors, but a point in every cell and its distances to the sides of the box.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355, section 3.
map -> tower -> classes and centerness; map -> tower -> exp of scaled distances in pixels
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, grid_of, output_conv, rows_of, shared_channels, steps_of
from pyrafuse.heads.registry import HEADS
from pyrafuse.ops.coders import LARGEST_LOG


@HEADS.register("fcos", predictions="points", shares_levels=True)
class FCOSHead(nn.Module):
    """Pyramid -> `DensePredictions` whose deltas are distances in pixels, left, top, right, bottom.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        num_convs: Number of convolutions of each tower, with group norms.
        channels: Channels of each tower.
        centerness_on_boxes: Read the centerness from the boxes' tower, as the authors did later; else from the
            classes'.
        distances: ``exp`` of the output times a scale that each level learns; or, in strides, ``scaled_relu`` of the
            same, as the authors did later, or ``relu`` of the output alone, as torchvision does.
        whole_steps: Points stand in the corners of cells, not in the middle, and as many whole pixels apart as the
            input has for a cell, which on coarse levels may be less than the stride: torchvision's way.
        redundant_bias: Whether convolutions before a norm have a bias.
        deformable: Let each tower begin with a deformable convolution (DDOD).
        prior: Score that training starts from.

    Raises:
        ValueError: If the levels differ in channels, or ``distances`` is another one.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        num_convs: int = 4,
        channels: int = 256,
        centerness_on_boxes: bool = False,
        distances: Literal["exp", "relu", "scaled_relu"] = "exp",
        whole_steps: bool = False,
        redundant_bias: bool = False,
        deformable: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        if distances not in ("exp", "relu", "scaled_relu"):
            raise ValueError(f"distances are exp, relu or scaled_relu of an output, not {distances!r}")
        before = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        self.num_slots = 1
        self.centerness_on_boxes = centerness_on_boxes
        self.whole_steps = whole_steps
        self.shapes: Tensor
        squares = torch.tensor(features.strides, dtype=torch.float32).view(-1, 1, 1).repeat(1, 1, 2)
        self.register_buffer("shapes", squares, persistent=False)
        self.class_tower, self.box_tower = (
            Tower(before, channels, num_convs, norm="group_norm", redundant_bias=redundant_bias, deformable=deformable)
            for _ in range(2)
        )
        self.classes = output_conv(self.class_tower.channels, num_classes, prior=prior)
        self.class_rows = {"classes": ClassRows()}
        self.deltas = output_conv(self.box_tower.channels, 4)
        self.quality = output_conv(self.box_tower.channels, 1)
        self.distances = distances
        is_scaled = distances != "relu"
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in features.strides) if is_scaled else None

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        classes, deltas, quality = [], [], []
        for level, x in enumerate(pyramid):
            seen, boxes = self.class_tower(x, level), self.box_tower(x, level)
            classes.append(self.classes(seen))
            deltas.append(self._distances(self.deltas(boxes), level))
            quality.append(self.quality(boxes if self.centerness_on_boxes else seen))
        return DensePredictions(
            classes=rows_of(classes, 1),
            deltas=torch.cat(deltas, dim=1),
            quality=rows_of(quality, 1).squeeze(2),
            grid=grid_of(
                pyramid,
                self.strides,
                self.shapes,
                offset=0 if self.whole_steps else 0.5,
                steps=steps_of(pyramid, self.strides, whole=True) if self.whole_steps else None,
            ),
        )

    def _distances(self, x: Tensor, level: int) -> Tensor:
        """Rows (B, H * W, 4) in pixels of a map (B, 4, H, W)."""
        rows = rows_of([x if self.scales is None else x * self.scales[level]], 1)
        return rows.clamp(max=LARGEST_LOG).exp() if self.distances == "exp" else rows.relu() * self.strides[level]
