"""RetinaNet's head: two towers that all levels share, one for classes and one for boxes.

Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002, section 4; with a batch norm of each level's own
as in NAS-FPN, arXiv:1904.07392, section 4.1.
map -> tower -> classes of each anchor; map -> tower -> deltas of each anchor
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, TowerNorm, grid_of, output_conv, rows_of, shared_channels, steps_of
from pyrafuse.heads.registry import HEADS
from pyrafuse.ops.anchors import anchor_shapes, octave_scales


@HEADS.register("retinanet", predictions="anchors", shares_levels=True)
class RetinaNetHead(nn.Module):
    """Pyramid -> `DensePredictions`.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        num_convs: Number of convolutions of each tower.
        channels: Channels of each tower.
        scale: Side of the smallest anchor in strides.
        scales_per_octave: Anchors of each ratio, up to twice the smallest.
        ratios: Height to width.
        norm: Norm of the towers, as in `Tower`.
        whole_pixels: Sides of anchors are rounded to even pixels, and these stand as many whole pixels apart as the
            input has for a cell, which on coarse levels may be less than the stride: torchvision's way.
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
        scale: float = 4.0,
        scales_per_octave: int = 3,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        norm: TowerNorm = "none",
        whole_pixels: bool = False,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        before = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        scales = octave_scales(scale, scales_per_octave)
        shapes = torch.stack([anchor_shapes(s, scales=scales, ratios=ratios) for s in features.strides])
        if whole_pixels:
            # theirs cuts the scales first, and then rounds half of each side
            whole = [[int(s * scale) for scale in scales] for s in features.strides]
            shapes = torch.stack([anchor_shapes(1, scales=sides, ratios=ratios) for sides in whole])
            shapes = (shapes / 2).round() * 2
        self.whole_pixels = whole_pixels
        self.num_slots = shapes.shape[1]
        self.shapes: Tensor
        self.register_buffer("shapes", shapes, persistent=False)
        self.class_tower = Tower(before, channels, num_convs, norm=norm, num_levels=len(features))
        self.box_tower = Tower(before, channels, num_convs, norm=norm, num_levels=len(features))
        self.classes = output_conv(self.class_tower.channels, self.num_slots * num_classes, prior=prior)
        self.class_rows = {"classes": ClassRows()}
        self.deltas = output_conv(self.box_tower.channels, self.num_slots * 4)

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        classes = [self.classes(self.class_tower(x, level)) for level, x in enumerate(pyramid)]
        deltas = [self.deltas(self.box_tower(x, level)) for level, x in enumerate(pyramid)]
        return DensePredictions(
            classes=rows_of(classes, self.num_slots),
            deltas=rows_of(deltas, self.num_slots),
            quality=None,
            grid=grid_of(
                pyramid,
                self.strides,
                self.shapes,
                steps=steps_of(pyramid, self.strides, whole=True) if self.whole_pixels else None,
            ),
        )
