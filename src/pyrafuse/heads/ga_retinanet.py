"""RetinaNet's head with guided anchoring: it first says where objects are and in which shape, then looks there.

Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, section 3.
map -> towers -> locations and shapes; towers adapted to the shapes -> classes and deltas of the guided anchor
"""

import math

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import AnchorGuides, DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import Tower, grid_of, output_conv, rows_of, shared_channels
from pyrafuse.heads.registry import HEADS
from pyrafuse.layers.conv import initialize_small
from pyrafuse.layers.deformable import Deformable
from pyrafuse.ops.anchors import anchor_shapes
from pyrafuse.ops.coders import guide_anchors


class ShapeAdaption(Deformable):
    """x (B, C, H, W) and shapes (B, 2, H, W) -> (B, C, H, W): a deformable convolution whose taps the shapes move.

    No gradient returns to the shapes from here.
    """

    def __init__(self, channels: int, *, groups: int = 4) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"{channels} channels do not split into {groups} deformable groups")
        self.offset = nn.Conv2d(2, 18 * groups, 1, bias=False)
        nn.init.normal_(self.offset.weight, std=0.1)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.normal_(self.weight, std=0.01)
        self.bias = None

    def forward(self, x: Tensor, shapes: Tensor) -> Tensor:
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(x.device.type, enabled=False):
            offset = self.offset(shapes.detach().to(self.weight.dtype))
            return self.convolve3x3(x.to(self.weight.dtype), offset).relu()


@HEADS.register("ga_retinanet", predictions="guided_anchors", shares_levels=True)
class GARetinaNetHead(nn.Module):
    """Pyramid -> `DensePredictions` with guides, one guided anchor a cell.

    All cells are computed; cells that hold no object are left out when the predictions are decoded.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        num_convs: Number of convolutions of each tower.
        channels: Channels of each tower, a multiple of 4.
        scale: Side of the square that is guided, in strides.
        least_location: Cells less likely to hold an object are left out in detection.
        prior: Score, of classes and locations, that training starts from.

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
        least_location: float = 0.01,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        before = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        self.num_slots = 1
        self.least_location = least_location
        self.shapes: Tensor
        shapes = torch.stack([anchor_shapes(s, scales=(scale,), ratios=(1.0,)) for s in features.strides])
        self.register_buffer("shapes", shapes, persistent=False)
        self.class_tower = Tower(before, channels, num_convs)
        self.box_tower = Tower(before, channels, num_convs)
        width = self.class_tower.channels
        self.location = nn.Conv2d(width, 1, 1)
        self.shape = nn.Conv2d(width, 2, 1)
        initialize_small(self.location)
        initialize_small(self.shape)
        assert self.location.bias is not None
        nn.init.constant_(self.location.bias, -math.log((1 - prior) / prior))
        self.class_adaption = ShapeAdaption(width)
        self.box_adaption = ShapeAdaption(width)
        self.classes = output_conv(width, num_classes, prior=prior)
        self.class_rows = {"classes": ClassRows()}
        self.deltas = output_conv(width, 4)

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        classes, deltas, shapes, locations = [], [], [], []
        for level, x in enumerate(pyramid):
            seen, boxes = self.class_tower(x, level), self.box_tower(x, level)
            locations.append(self.location(seen))
            shapes.append(self.shape(boxes))
            classes.append(self.classes(self.class_adaption(seen, shapes[-1])))
            deltas.append(self.deltas(self.box_adaption(boxes, shapes[-1])))
        grid = grid_of(pyramid, self.strides, self.shapes)
        guided = rows_of(shapes, 1)
        return DensePredictions(
            classes=rows_of(classes, 1),
            deltas=rows_of(deltas, 1),
            quality=None,
            grid=grid,
            guides=AnchorGuides(
                anchors=guide_anchors(grid.anchors, guided.detach()),
                shapes=guided,
                locations=rows_of(locations, 1).squeeze(2),
                least_location=self.least_location,
            ),
        )
