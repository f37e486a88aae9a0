"""ResNet, its grouped form ResNeXt, and both with efficient channel attention (ECA-Net).

He et al., arXiv:1512.03385; Xie et al., "Aggregated Residual Transformations", arXiv:1611.05431; Wang et al.,
"ECA-Net", arXiv:1910.03151. images -> 7x7 stem and pool -> four stages of residual blocks -> maps
"""

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.layers.conv import initialize
from pyrafuse.layers.eca import ECA

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks a stage; from 50 on they are bottlenecks."""

ECA_KERNELS = {18: (3, 5, 7, 7), 34: (3, 3, 5, 7), 50: (3, 5, 5, 7), 101: (3, 3, 5, 7), 152: (3, 3, 5, 7)}
"""Channels that ECA weighs together in each stage, as the authors' ImageNet checkpoints have them."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, *, stride: int, attention: int | None) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, planes, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.eca = nn.Identity() if attention is None else ECA(planes, kernel_size=attention)
        self.downsample = _shortcut(in_channels, planes, stride)

    def add(self, x: Tensor) -> Tensor:
        """The sum of both paths, before the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.eca(self.bn2(self.conv2(y))) + self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.add(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution and a shortcut; ``stride_first`` puts the stride on the first 1x1."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        planes: int,
        *,
        stride: int,
        attention: int | None,
        groups: int = 1,
        base_width: int = 64,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        width, out_channels = planes * base_width // 64 * groups, planes * self.expansion
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = _conv(in_channels, width, 1, stride=first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride=second, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.eca = nn.Identity() if attention is None else ECA(out_channels, kernel_size=attention)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def add(self, x: Tensor) -> Tensor:
        """The sum of both paths, before the block's last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return self.eca(self.bn3(self.conv3(y))) + self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.add(x), inplace=True)


def resnet(
    *,
    depth: int = 50,
    style: Literal["pytorch", "caffe"] = "pytorch",
    width: int = 64,
    groups: int = 1,
    base_width: int = 64,
    attention: Sequence[int] | None = None,
    downsampling: Sequence[int] = (1, 2, 2, 2),
    strides: Sequence[int] = (8, 16, 32),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> StagedBackbone:
    """A ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        style: Where a bottleneck strides: ``pytorch`` on its 3x3 convolution, ``caffe`` on its first 1x1. Checkpoints
            of the two have the same keys: take the style that they were trained with.
        width: Channels of the stem and of the first stage's blocks; later stages double it.
        groups: Groups of the 3x3 convolution (ResNeXt); 1 in blocks without bottleneck.
        base_width: Channels of a group's 3x3 convolution where ``width`` is 64.
        attention: ECA's kernel size in each stage; none without.
        downsampling: Stride of each stage; (1, 2, 1, 2) is M2Det's.
        strides: Which maps to give, of 4, 8, 16 and 32.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and n stages.
        norm_eval: Batch norms keep to their stored statistics in training.
        weights: Published checkpoint: torchvision's, timm's, ECA-Net's or mmdetection's; a file, ``torchvision/NAME``
            or ``timm/NAME``.

    Raises:
        ValueError: If there is no such depth or style, or numbers are not one a stage.
        PyrafuseError: If there is no such map or stage.
        CheckpointError: If ``weights`` do not fit.
    """
    if depth not in DEPTHS or style not in ("pytorch", "caffe"):
        raise ValueError(
            f"no ResNet of depth {depth} in style {style!r}: depths are {', '.join(map(str, DEPTHS))}, "
            "styles pytorch and caffe"
        )
    if len(downsampling) != 4 or (attention is not None and len(attention) != 4):
        raise ValueError(f"four stages need four of each: downsampling {downsampling}, attention {attention}")
    is_deep = depth >= 50
    if not is_deep and (groups, base_width) != (1, 64):
        raise ValueError(f"ResNet-{depth} has no bottlenecks to group, got groups={groups}, base_width={base_width}")
    grouping = {"groups": groups, "base_width": base_width, "stride_first": style == "caffe"}
    block = partial(Bottleneck, **grouping) if is_deep else BasicBlock
    expansion = Bottleneck.expansion if is_deep else BasicBlock.expansion
    stages, channels, stage_strides = [], [width], [4]
    for i, num_blocks in enumerate(DEPTHS[depth]):
        kernel = None if attention is None else attention[i]
        planes = width * 2**i
        first = block(channels[-1], planes, stride=downsampling[i], attention=kernel)
        rest = (block(planes * expansion, planes, stride=1, attention=kernel) for _ in range(num_blocks - 1))
        stages.append(nn.Sequential(first, *rest))
        channels.append(planes * expansion)
        stage_strides.append(stage_strides[-1] * downsampling[i])
    backbone = StagedBackbone(
        _stem(width),
        stages,
        channels=channels[1:],
        stage_strides=stage_strides[1:],
        strides=strides,
        frozen_stages=frozen_stages,
        norm_eval=norm_eval,
    )
    initialize(backbone, slope=0)
    if weights is not None:
        unused = (r"fc\.", rf"layer[{len(backbone.stages) + 1}-9]\.")
        load_exactly(
            backbone, read_resnet(weights), source=weights, naming=name_resnet, unused=unused, model=f"ResNet-{depth}"
        )
    return backbone


def name_resnet(key: str) -> str:
    """The published key (torchvision, mmdetection, ECA-Net) of a ResNet's key."""
    key = re.sub(r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", key)
    return key.removeprefix("stem.")


def read_resnet(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """A published ResNet checkpoint, with timm's name of ECA, ``se``, made ECA-Net's."""
    return {key.replace(".se.conv.", ".eca.conv."): value for key, value in read_published(weights).items()}


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=_conv(3, channels, 7, stride=2),
            bn1=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


def _conv(before: int, after: int, kernel_size: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False)


def _shortcut(before: int, after: int, stride: int) -> nn.Module:
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(_conv(before, after, 1, stride=stride), nn.BatchNorm2d(after))


for _depth in DEPTHS:
    BACKBONES.add(f"resnet{_depth}", partial(resnet, depth=_depth))
    BACKBONES.add(
        f"eca_resnet{_depth}", partial(resnet, depth=_depth, attention=ECA_KERNELS[_depth]), paper="1910.03151"
    )
BACKBONES.add("resnext50_32x4d", partial(resnet, depth=50, groups=32, base_width=4), paper="1611.05431")
BACKBONES.add("resnext101_32x8d", partial(resnet, depth=101, groups=32, base_width=8), paper="1611.05431")
BACKBONES.add("resnext101_64x4d", partial(resnet, depth=101, groups=64, base_width=4), paper="1611.05431")
