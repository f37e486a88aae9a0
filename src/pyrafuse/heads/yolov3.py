"""YOLOv3's head with guided anchoring: three guided anchors and one anchor-free guess a cell.

arXiv:1911.09516, section 3.1, after Wang et al., arXiv:1901.03278. For each level:
map -> guide (1x1) -> anchor shapes; map -> feature adaption by these shapes -> 1x1 -> boxes, objectness, classes
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import AnchorGrid, GuidedPredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.registry import HEADS
from pyrafuse.layers.conv import ConvNormAct, initialize, initialize_small
from pyrafuse.layers.deformable import FeatureAdaption

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (42, 119)),
    ((116, 90), (156, 198), (121, 240)),
)
"""Width and height in pixels, a row a level, of the published ASFF models. They differ from YOLOv3's own at (42, 119)
and (121, 240), and its authors say that the models were trained so: do not correct them."""


DARKNET_ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""The same of YOLOv3's own paper (arXiv:1804.02767, section 2.3)."""

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""Width and height in pixels, a row a level, finest first."""


def anchors_for(strides: Sequence[int], anchors: Anchors = ANCHORS) -> Anchors:
    """``anchors`` where the strides are 8, 16, 32; else their middle row, scaled to each stride."""
    if tuple(strides) == (8, 16, 32):
        return anchors
    return tuple(tuple((w * stride / 16, h * stride / 16) for w, h in anchors[1]) for stride in strides)


class BranchedOutput(nn.Module):
    """Classes and boxes predicted from a 3x3 convolution each, after YOLOX (Ge et al., arXiv:2107.08430, section 2.1).

    Classes then do not have to learn through what boxes and objectness, whose gradients are the larger, make of the
    map: (B, C, H, W) -> (B, slots * (5 + K), H, W), channels as from one convolution.
    """

    def __init__(self, in_channels: int, *, num_slots: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.box_branch = ConvNormAct(in_channels, channels, 3)
        self.class_branch = ConvNormAct(in_channels, channels, 3)
        initialize(self)
        self.boxes = nn.Conv2d(channels, num_slots * 5, 1)
        self.classes = nn.Conv2d(channels, num_slots * num_classes, 1)
        initialize_small(self.boxes)
        initialize_small(self.classes)

    def forward(self, x: Tensor) -> Tensor:
        boxes = self.boxes(self.box_branch(x)).unflatten(1, (self.num_slots, -1))
        classes = self.classes(self.class_branch(x)).unflatten(1, (self.num_slots, -1))
        return torch.cat((boxes, classes), dim=2).flatten(1, 2)


@HEADS.register(
    "yolov3", predictions="cells", derived={"anchors": lambda given: anchors_for(given["features"].strides)}
)
class YOLOv3Head(nn.Module):
    """Pyramid -> `GuidedPredictions`, rows ordered by level (coarsest first), anchor, y, x, as in YOLOv3.

    Args:
        features: The pyramid that comes in.
        num_classes: Number of classes, K.
        anchors: Width and height in pixels, a row a level (finest first); by default `anchors_for` the strides.
        guided: Predict the anchors' shapes, and add an anchor-free guess to every cell (its shape starts at four
            strides). Without: the plain anchors.
        adaption: Sample features by the guided shapes (needs ``guided``).
        rfb: Receptive field block before the adaption (ASFF*).
        branches: Channels of a 3x3 convolution for classes and one for boxes (`BranchedOutput`); 0 predicts both from
            the map itself, as the paper does.
        reach: Cells that a centre may lie outside its own; neighbours of an object's cell can find it then.
        prior: Objectness that training starts from; the original starts at one half, which costs it the first epochs.

    Raises:
        ValueError: If the anchors are not one row a level, all of one length.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        anchors: Sequence[Sequence[tuple[float, float]]] | None = None,
        guided: bool = True,
        adaption: bool = True,
        rfb: bool = False,
        branches: int = 0,
        reach: float = 0.0,
        prior: float = 0.01,
    ) -> None:
        super().__init__()
        anchors = anchors_for(features.strides) if anchors is None else anchors
        if len(anchors) != len(features) or len({len(row) for row in anchors}) != 1:
            raise ValueError(f"anchors must be one row a level, {len(features)} rows of one length, got {anchors}")
        if adaption and not guided:
            raise ValueError("feature adaption follows guided shapes: switch it off, or guided anchoring on")
        self.strides = features.strides
        self.num_classes = num_classes
        self.reach = reach
        self.num_slots = len(anchors[0]) + guided
        free = [[(4.0 * stride, 4.0 * stride)] if guided else [] for stride in features.strides]
        shapes = [[*row, *extra] for row, extra in zip(anchors, free, strict=True)]
        self.shapes: Tensor
        self.register_buffer("shapes", torch.tensor(shapes, dtype=torch.float32), persistent=False)

        def per_level(create) -> nn.ModuleList:  # noqa: ANN001
            return nn.ModuleList(create(channels) for channels in features.channels)

        self.guides = per_level(lambda c: nn.Conv2d(c, 2 * self.num_slots, 1)) if guided else None
        self.adaptions = per_level(lambda c: FeatureAdaption(c, self.num_slots, rfb=rfb)) if adaption else None
        self.outputs = per_level(lambda c: self._create_output(c, branches, prior))
        levels = range(len(features))
        self.class_rows = (
            {f"outputs.{level}.classes": ClassRows() for level in levels}
            if branches
            else {f"outputs.{level}": ClassRows(before=5) for level in levels}
        )
        # anchors start as they are given, and boxes as their anchors; the original starts from random shapes
        for guide in self.guides or ():
            initialize_small(guide)

    def _create_output(self, channels: int, branches: int, prior: float) -> nn.Module:
        if branches:
            output: nn.Module = BranchedOutput(
                channels, num_slots=self.num_slots, num_classes=self.num_classes, channels=branches
            )
            biases = output.boxes.bias
        else:
            output = nn.Conv2d(channels, self.num_slots * (5 + self.num_classes), 1)
            initialize_small(output)
            biases = output.bias
        with torch.no_grad():
            assert isinstance(biases, Tensor)
            biases.view(self.num_slots, -1)[:, 4] = -math.log((1 - prior) / prior)
        return output

    def forward(self, pyramid: Pyramid) -> GuidedPredictions:
        outputs, guides = [], []
        for level in reversed(range(len(pyramid))):
            x = pyramid[level]
            guide = x.new_zeros(x.shape[0], 2 * self.num_slots, *x.shape[-2:])
            if self.guides is not None:
                guide = self.guides[level](x)
            if self.adaptions is not None:
                x = self.adaptions[level](x, guide)
            outputs.append(self._rows(self.outputs[level](x)))
            guides.append(self._rows(guide))
        # float32: exp() of a size needs the range, and the centre of a 600 px image the bits
        output = torch.cat(outputs, dim=1)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        deltas, objectness, classes = output.split((4, 1, self.num_classes), dim=-1)
        return GuidedPredictions(
            deltas=deltas,
            objectness=objectness.squeeze(-1),
            classes=classes,
            guides=torch.cat(guides, dim=1).to(output.dtype),
            grid=self._grid([(x.shape[-2], x.shape[-1]) for x in pyramid]),
        )

    def _rows(self, x: Tensor) -> Tensor:
        """(B, slots * D, H, W) -> (B, slots * H * W, D)."""
        batch, channels, height, width = x.shape
        x = x.view(batch, self.num_slots, channels // self.num_slots, height * width)
        return x.transpose(2, 3).reshape(batch, self.num_slots * height * width, -1)

    def _grid(self, sizes: Sequence[tuple[int, int]]) -> AnchorGrid:
        device = self.shapes.device
        areas = [height * width for height, width in sizes]
        starts = [self.num_slots * sum(areas[level + 1 :]) for level in range(len(sizes))]
        cells, shapes, strides, levels = [], [], [], []
        for level in reversed(range(len(sizes))):
            height, width = sizes[level]
            rows = self.num_slots * height * width
            y, x = torch.meshgrid(
                torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
            )
            cells.append(torch.stack((x, y), dim=-1).view(1, -1, 2).expand(self.num_slots, -1, -1).reshape(-1, 2))
            shapes.append(self.shapes[level][:, None].expand(-1, height * width, -1).reshape(-1, 2))
            strides.append(torch.full((rows,), float(self.strides[level]), device=device))
            levels.append(torch.full((rows,), level, device=device))
        slots = range(self.num_slots)
        firsts = torch.tensor(
            [[start + slot * area for slot in slots] for start, area in zip(starts, areas, strict=True)]
        )
        return AnchorGrid(
            cells=torch.cat(cells).float(),
            shapes=torch.cat(shapes),
            strides=torch.cat(strides),
            levels=torch.cat(levels),
            # non-blocking: a plain copy would make the host wait for the device
            starts=firsts.to(device, non_blocking=True),
            sizes=torch.tensor([(width, height) for height, width in sizes]).to(device, non_blocking=True),
            reach=self.reach,
        )


HEADS.add(
    "yolov3_plain",
    partial(YOLOv3Head, guided=False, adaption=False),
    paper="1804.02767",
    predictions="plain_cells",
    derived={"anchors": lambda given: anchors_for(given["features"].strides, DARKNET_ANCHORS)},
)
