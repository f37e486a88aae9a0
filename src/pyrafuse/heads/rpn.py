"""Region proposal network: where there may be an object, whatever it is.

Ren et al., "Faster R-CNN", arXiv:1506.01497, section 3.1; on a pyramid as in arXiv:1612.03144, section 4.1.
map -> 3x3 convolution -> objectness of each anchor, deltas of each anchor
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, grid_of, rows_of, shared_channels, steps_of
from pyrafuse.heads.registry import PROPOSAL_HEADS
from pyrafuse.layers.conv import initialize_small
from pyrafuse.ops.anchors import anchor_shapes


@PROPOSAL_HEADS.register("rpn", shares_levels=True, derived={"channels": lambda given: given["features"].channels[0]})
class RPNHead(nn.Module):
    """Pyramid -> `DensePredictions` of one class.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        channels: Channels of the convolutions that all levels share; by default those of the pyramid.
        num_convs: 3x3 ones before the two outputs.
        scales: Sides of the anchors in strides.
        ratios: Height to width.
        whole_pixels: Sides of anchors are rounded to even pixels, and these stand as many whole pixels apart as the
            input has for each cell (torchvision).

    Raises:
        ValueError: If the levels differ in channels.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        channels: int | None = None,
        num_convs: int = 1,
        scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        whole_pixels: bool = False,
    ) -> None:
        super().__init__()
        before = shared_channels(features)
        self.strides = features.strides
        shapes = torch.stack([anchor_shapes(s, scales=scales, ratios=ratios) for s in features.strides])
        self.whole_pixels = whole_pixels
        shapes = (shapes / 2).round() * 2 if whole_pixels else shapes
        self.num_slots = shapes.shape[1]
        self.shapes: Tensor
        self.register_buffer("shapes", shapes, persistent=False)
        self.tower = Tower(before, before if channels is None else channels, num_convs)
        self.objectness = nn.Conv2d(self.tower.channels, self.num_slots, 1)
        self.deltas = nn.Conv2d(self.tower.channels, self.num_slots * 4, 1)
        initialize_small(self.objectness)
        initialize_small(self.deltas)

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        maps = [self.tower(x, level) for level, x in enumerate(pyramid)]
        return DensePredictions(
            classes=rows_of([self.objectness(x) for x in maps], self.num_slots),
            deltas=rows_of([self.deltas(x) for x in maps], self.num_slots),
            quality=None,
            grid=grid_of(
                pyramid,
                self.strides,
                self.shapes,
                steps=steps_of(pyramid, self.strides, whole=True) if self.whole_pixels else None,
            ),
        )
