"""What stands in a region: its cells are pooled from the level that fits its size, and a few layers tell class and box.

Girshick, "Fast R-CNN", arXiv:1504.08083, section 2; on a pyramid as in arXiv:1612.03144, section 4.2; sampled as in
"Mask R-CNN", arXiv:1703.06870, section 3. pyramid, regions -> RoIAlign -> (3x3 ...) -> fc -> fc -> classes, deltas
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from pyrafuse.base.errors import check_count
from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.core.regions import RegionPredictions, Regions
from pyrafuse.core.tracing import is_traced
from pyrafuse.heads.dense import shared_channels
from pyrafuse.heads.registry import ROI_HEADS
from pyrafuse.layers.conv import ConvNormAct, initialize
from pyrafuse.ops.boxes import box_area, has_area

CELLS = 14
"""A region of so many cells a side, or up to twice as many, is looked at on that level: 224 px at stride 16."""


def choose_levels(boxes: Tensor, *, num_levels: int, finest_scale: float) -> Tensor:
    """The level (...,) int64 for each of the boxes (..., 4) by its size (arXiv:1612.03144, equation 1).

    Args:
        boxes: xyxy in pixels.
        num_levels: Number of levels.
        finest_scale: Boxes with sides up to twice as long in pixels, by their geometric mean, belong to level 0; those
            up to twice as long again to level 1, and so on.
    """
    scale = box_area(boxes).sqrt() / finest_scale
    return (scale + 1e-6).log2().floor().clamp(0, num_levels - 1).long()


def pool_regions(
    pyramid: Pyramid,
    strides: Sequence[int],
    boxes: Tensor,
    levels: Tensor,
    *,
    resolution: int = 7,
    samples: int = 0,
    aligned: bool = True,
) -> Tensor:
    """RoIAlign: cells (B, R, C, resolution, resolution) of each box from its level, at least float32.

    Each bin is the mean of one sample a cell of the map, rounded up, as in mmdetection's and detectron2's;
    torchvision's detectors have two across and down, half a cell further right and down.

    Args:
        pyramid: Maps of C channels.
        strides: Pixels a cell.
        boxes: (B, R, 4) xyxy in pixels; an empty box has zeros.
        levels: (B, R) index into the pyramid.
        resolution: Bins across and down.
        samples: Across and down of each bin; 0 is one a cell of the map.
        aligned: A cell's value stands for its middle, else for its upper left corner, and a box has a cell at least.
    """
    batch, num = levels.shape
    image = torch.arange(batch * num, device=boxes.device).div(max(num, 1), rounding_mode="floor")
    pooled = None
    for level, (x, stride) in enumerate(zip(pyramid, strides, strict=True)):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # a box of another level is emptied, which costs no sample, instead of left out, which would make the host wait
        is_own = levels == level
        own = boxes.where(is_own[..., None], 0).view(-1, 4)
        rois = torch.cat((image[:, None], own), dim=1).to(x.dtype)
        cells = roi_align(x, rois, resolution, spatial_scale=1 / stride, sampling_ratio=samples or -1, aligned=aligned)
        if samples or not aligned:  # emptied boxes have samples too
            cells = cells * is_own.view(-1, 1, 1, 1)
        elif is_traced():  # the mean of no sample is 0 in torch and onnxruntime, and NaN in OpenVINO
            cells = cells.where(has_area(own).view(-1, 1, 1, 1), 0)
        pooled = cells if pooled is None else pooled + cells
    assert pooled is not None
    return pooled.view(batch, num, *pooled.shape[1:])


@ROI_HEADS.register("region", derived={"finest_scale": lambda given: CELLS * given["features"].strides[0]})
class RegionHead(nn.Module):
    """Pyramid, regions -> `RegionPredictions`.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        class_agnostic: One box a region, instead of one for each class.
        channels: Channels of the fully connected layers.
        num_layers: Number of fully connected layers.
        num_convs: 3x3 convolutions of the pyramid's channels before them, each with ReLU; 4 and one layer behind them
            in "Group Normalization", arXiv:1803.08494, section 4.2, and in torchvision's second Faster R-CNN.
        norm: Behind each of these: ``none`` (they have biases) or ``batch_norm``, in whose statistics rows that hold no
            region count.
        resolution: Bins across and down that are pooled of a region.
        samples: Samples for each bin across and down; 0 takes as many as the bin has cells.
        aligned: Whether samples are shifted by half a cell, so that they lie at the centres of cells.
        finest_scale: Side in pixels of RoIs that are read from the finest level; by default 14 cells of the finest
            level, 56 px at stride 4.
        coarsest_stride: Coarser levels are there for the proposals alone; the finest is always looked at.

    Raises:
        ValueError: If the levels differ in channels, ``norm`` is another one, or ``num_layers`` or ``num_convs`` no
            whole number of 0 or more.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        class_agnostic: bool = False,
        channels: int = 1024,
        num_layers: int = 2,
        num_convs: int = 0,
        norm: Literal["none", "batch_norm"] = "none",
        resolution: int = 7,
        samples: int = 0,
        aligned: bool = True,
        finest_scale: float | None = None,
        coarsest_stride: int = 32,
    ) -> None:
        super().__init__()
        if norm not in ("none", "batch_norm"):
            raise ValueError(f"the norm of a region's convolutions is none or batch_norm, not {norm!r}")
        check_count("num_layers", num_layers)
        check_count("num_convs", num_convs)
        self.strides = tuple(s for s in features.strides if s <= coarsest_stride) or features.strides[:1]
        self.finest_scale = CELLS * self.strides[0] if finest_scale is None else finest_scale
        self.resolution = resolution
        self.samples = samples
        self.aligned = aligned
        self.num_classes = num_classes
        self.num_boxes = 1 if class_agnostic else num_classes
        before = shared_channels(features)
        self.convs = nn.Sequential(
            *(ConvNormAct(before, before, 3, norm=norm != "none", activation="relu") for _ in range(num_convs))
        )
        initialize(self.convs, slope=0)
        widths = [before * resolution**2, *[channels] * num_layers]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.classes = nn.Linear(widths[-1], num_classes + 1)
        self.deltas = nn.Linear(widths[-1], self.num_boxes * 4)
        self.class_rows = {"classes": ClassRows(after=1)}
        if not class_agnostic:
            self.class_rows["deltas"] = ClassRows(width=4)
        for layer in self.layers:
            nn.init.xavier_uniform_(cast("nn.Linear", layer).weight)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (*self.layers, self.classes, self.deltas):
            nn.init.zeros_(cast("nn.Linear", layer).bias)

    def forward(self, pyramid: Pyramid, regions: Regions) -> RegionPredictions:
        levels = choose_levels(regions.boxes, num_levels=len(self.strides), finest_scale=self.finest_scale)
        fine = pyramid[: len(self.strides)]
        x = pool_regions(
            fine,
            self.strides,
            regions.boxes,
            levels,
            resolution=self.resolution,
            samples=self.samples,
            aligned=self.aligned,
        )
        classes, deltas = self.judge(x.flatten(0, 1))
        return RegionPredictions(
            regions=regions,
            levels=levels,
            classes=classes.view(*levels.shape, -1),
            deltas=deltas.view(*levels.shape, self.num_boxes, 4),
        )

    def judge(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (N, K + 1) and deltas (N, S * 4), at least float32, of pooled cells (N, C, bins, bins)."""
        x = self.convs(cells).flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        classes, deltas = self.classes(x), self.deltas(x)
        # exp() of a size needs the range, and a centre at 1000 px the bits
        dtype = torch.promote_types(classes.dtype, torch.float32)
        return classes.to(dtype), deltas.to(dtype)
