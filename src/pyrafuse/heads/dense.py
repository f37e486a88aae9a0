"""What dense heads share: towers of convolutions over all levels, maps as rows, and where the rows stand."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.base.errors import check_count
from pyrafuse.core.predictions import DenseGrid
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.layers.conv import initialize_small
from pyrafuse.layers.deformable import DeformableConv2d
from pyrafuse.ops.anchors import Stride, lay_anchors

TowerNorm = Literal["none", "group_norm", "level_norm"]


class Tower(nn.Module):
    """3x3 convolutions with ReLU, the same for every level: (B, C_in, H, W) -> (B, C, H, W).

    Args:
        in_channels: Number of input channels, C_in.
        channels: Number of channels, C.
        num_convs: Number of convolutions.
        norm: Behind each convolution: ``none`` (they have biases), ``group_norm``, or ``level_norm``, a batch norm of
            each level's own (NAS-FPN).
        redundant_bias: Give convolutions before norms a bias, as torchvision's FCOS has.
        num_levels: Number of levels, for ``level_norm``.
        deformable: Make the first convolution a deformable one (DDOD).

    Raises:
        ValueError: If ``norm`` is another one, or ``num_convs`` no whole number of 0 or more.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_convs: int,
        *,
        norm: TowerNorm = "none",
        redundant_bias: bool = False,
        num_levels: int = 1,
        deformable: bool = False,
    ) -> None:
        super().__init__()
        if norm not in ("none", "group_norm", "level_norm"):
            raise ValueError(f"a tower's norm is none, group_norm or level_norm, not {norm!r}")
        check_count("num_convs", num_convs)
        has_bias = redundant_bias or norm == "none"
        before = (in_channels, *[channels] * (num_convs - 1))[:num_convs]
        self.convs = nn.ModuleList(
            DeformableConv2d(c, channels, bias=has_bias)
            if deformable and i == 0
            else nn.Conv2d(c, channels, 3, padding=1, bias=has_bias)
            for i, c in enumerate(before)
        )
        for conv in self.convs:
            if isinstance(conv, nn.Conv2d):
                initialize_small(conv)
            else:
                assert isinstance(conv, DeformableConv2d)
                nn.init.normal_(conv.weight, std=0.01)

        def create_norms() -> nn.ModuleList:
            if norm == "level_norm":
                return nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_levels))
            # 32 groups of two channels or more: one channel of a 1x1 map has no deviation to divide by
            groups = math.gcd(32, channels, max(1, channels // 2))
            return nn.ModuleList([nn.GroupNorm(groups, channels)] if norm == "group_norm" else [])

        self.norms = nn.ModuleList(create_norms() for _ in range(num_convs))
        self.channels = channels if num_convs else in_channels

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Run on the map of ``level``."""
        for conv, norms in zip(self.convs, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            x = conv(x)
            if len(norms):
                x = norms[level % len(norms)](x)
            x = F.relu(x)
        return x


def output_conv(in_channels: int, out_channels: int, *, prior: float | None = None) -> nn.Conv2d:
    """3x3 convolution that ends a branch; as a classifier it starts from a score of ``prior``."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    initialize_small(conv)
    if prior is not None:
        assert conv.bias is not None
        nn.init.constant_(conv.bias, -math.log((1 - prior) / prior))
    return conv


def shared_channels(features: PyramidSpec) -> int:
    """Channels of every level.

    Raises:
        ValueError: If they differ: convolutions that all levels share cannot read them.
    """
    if len(set(features.channels)) != 1:
        raise ValueError(
            f"this head shares its convolutions over the levels, which have {features.channels} channels; put a neck "
            "before it that gives all levels the same, such as fpn"
        )
    return features.channels[0]


def rows_of(maps: Sequence[Tensor], num_anchors: int) -> Tensor:
    """Maps (B, S * D, H, W) of all levels -> rows (B, A, D) in the order of `DenseGrid`, at least float32."""
    rows = []
    for x in maps:
        batch, channels, height, width = x.shape
        x = x.view(batch, num_anchors, channels // num_anchors, height, width)
        rows.append(x.permute(0, 3, 4, 1, 2).reshape(batch, height * width * num_anchors, -1))
    joined = torch.cat(rows, dim=1)
    # exp() of a size needs the range, and a centre at 1000 px the bits
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def grid_of(
    pyramid: Pyramid,
    strides: Sequence[float],
    shapes: Tensor | Sequence[Tensor],
    *,
    offset: float = 0.0,
    steps: Sequence[Stride] | None = None,
) -> DenseGrid:
    """Anchors of ``shapes`` (S, 2) of each level, in pixels, in every cell of the pyramid.

    Args:
        pyramid: Feature maps whose cells are laid out.
        strides: Strides of the levels.
        shapes: Anchor shapes of the levels.
        offset: Offset of the centres, as in `lay_anchors`.
        steps: Distance of neighbouring anchors, where it is not the stride.
    """
    sizes = tuple((x.shape[-2], x.shape[-1]) for x in pyramid)
    boxes = [
        lay_anchors(shape, size, step, offset=offset)
        for shape, size, step in zip(shapes, sizes, strides if steps is None else steps, strict=True)
    ]
    counts = tuple(level.shape[0] for level in boxes)
    device = boxes[0].device
    return DenseGrid(
        anchors=torch.cat(boxes),
        strides=torch.cat([torch.full((n,), float(s), device=device) for n, s in zip(counts, strides, strict=True)]),
        levels=torch.cat([torch.full((n,), level, device=device) for level, n in enumerate(counts)]),
        counts=counts,
        sizes=sizes,
    )


def steps_of(pyramid: Pyramid, strides: Sequence[int], *, whole: bool = False) -> list[tuple[float, float]]:
    """Pixels a cell of each level, down and across: the input, as the finest map tells its size, by the cells.

    Args:
        pyramid: Feature maps whose cells are laid out.
        strides: Strides of the levels.
        whole: Drop what is left of a pixel.
    """
    height, width = (side * strides[0] for side in pyramid[0].shape[-2:])
    steps = [(height / x.shape[-2], width / x.shape[-1]) for x in pyramid]
    return [(float(int(down)), float(int(across))) for down, across in steps] if whole else steps
