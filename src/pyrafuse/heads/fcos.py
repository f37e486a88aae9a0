"""FCOS's head: no anchors, but a point in every cell and its distances to the sides of the box.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", arXiv:1904.01355, section 3.
map -> tower -> classes and centerness; map -> tower -> exp of scaled distances in pixels
"""

import torch
from torch import Tensor, nn

from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, grid_of, output_conv, rows_of, shared_channels
from pyrafuse.heads.registry import HEADS
from pyrafuse.ops.coders import LARGEST_LOG


@HEADS.register("fcos")
class FCOSHead(nn.Module):
    """Pyramid -> `DensePredictions` whose deltas are distances in pixels, left, top, right, bottom.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: K.
        num_convs: Of each tower, with group norms.
        channels: Of each tower.
        centerness_on_boxes: Read the centerness from the boxes' tower, as the authors did later; else from the
            classes'.
        prior: Score that training starts from.

    Raises:
        ValueError: If the levels differ in channels.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        num_convs: int = 4,
        channels: int = 256,
        centerness_on_boxes: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        before = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        self.num_slots = 1
        self.centerness_on_boxes = centerness_on_boxes
        self.shapes: Tensor
        squares = torch.tensor(features.strides, dtype=torch.float32).view(-1, 1, 1).expand(-1, 1, 2)
        self.register_buffer("shapes", squares, persistent=False)
        self.class_tower = Tower(before, channels, num_convs, norm="group_norm")
        self.box_tower = Tower(before, channels, num_convs, norm="group_norm")
        self.classes = output_conv(self.class_tower.channels, num_classes, prior=prior)
        self.deltas = output_conv(self.box_tower.channels, 4)
        self.quality = output_conv(self.box_tower.channels, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in features.strides)

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        classes, logs, quality = [], [], []
        for level, x in enumerate(pyramid):
            seen, boxes = self.class_tower(x, level), self.box_tower(x, level)
            classes.append(self.classes(seen))
            logs.append(self.deltas(boxes) * self.scales[level])
            quality.append(self.quality(boxes if self.centerness_on_boxes else seen))
        return DensePredictions(
            classes=rows_of(classes, 1),
            deltas=rows_of(logs, 1).clamp(max=LARGEST_LOG).exp(),
            quality=rows_of(quality, 1).squeeze(2),
            grid=grid_of(pyramid, self.strides, self.shapes, offset=0.5),
        )
