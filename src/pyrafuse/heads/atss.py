"""ATSS's head, one square anchor a cell and its quality, and DDOD's, whose towers start with a deformable convolution.

Zhang et al., arXiv:1912.02424, section 4; Chen et al., "Disentangle Your Dense Object Detector", arXiv:2107.02963,
section 4.2.
map -> tower -> classes; map -> tower -> scaled deltas, and how well the box lies (centerness, in DDOD its IoU)
"""

from functools import partial

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, grid_of, output_conv, rows_of, shared_channels
from pyrafuse.heads.registry import HEADS
from pyrafuse.ops.anchors import anchor_shapes


@HEADS.register("atss", predictions="anchors_with_quality", shares_levels=True)
class ATSSHead(nn.Module):
    """Pyramid -> `DensePredictions` with a quality.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        num_convs: Number of convolutions of each tower, with group norms.
        channels: Channels of each tower.
        scale: Side of the anchor in strides.
        deformable: Let each tower begin with a deformable convolution (DDOD).
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
        scale: float = 8.0,
        deformable: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        before = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        self.num_slots = 1
        self.shapes: Tensor
        shapes = torch.stack([anchor_shapes(s, scales=(scale,), ratios=(1.0,)) for s in features.strides])
        self.register_buffer("shapes", shapes, persistent=False)
        self.class_tower = Tower(before, channels, num_convs, norm="group_norm", deformable=deformable)
        self.box_tower = Tower(before, channels, num_convs, norm="group_norm", deformable=deformable)
        self.classes = output_conv(self.class_tower.channels, num_classes, prior=prior)
        self.class_rows = {"classes": ClassRows()}
        self.deltas = output_conv(self.box_tower.channels, 4)
        self.quality = output_conv(self.box_tower.channels, 1)
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in features.strides)

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        classes, deltas, quality = [], [], []
        for level, x in enumerate(pyramid):
            classes.append(self.classes(self.class_tower(x, level)))
            boxes = self.box_tower(x, level)
            deltas.append(self.deltas(boxes) * self.scales[level])
            quality.append(self.quality(boxes))
        return DensePredictions(
            classes=rows_of(classes, 1),
            deltas=rows_of(deltas, 1),
            quality=rows_of(quality, 1).squeeze(2),
            grid=grid_of(pyramid, self.strides, self.shapes),
        )


HEADS.add(
    "ddod",
    partial(ATSSHead, deformable=True),
    paper="2107.02963",
    predictions="anchors_with_quality",
    shares_levels=True,
)
