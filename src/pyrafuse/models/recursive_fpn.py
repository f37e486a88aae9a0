"""Recursive feature pyramid: the pyramid is fed back into a second backbone.

Qiao, Chen and Yuille, "DetectoRS", arXiv:2006.02334, section 3.
images -> ResNet -> FPN -> pyramid; (images, ASPP of the pyramid) -> ResNet -> FPN -> pyramid, fused with the last one
"""

from collections.abc import Callable, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.resnet import BasicBlock, Bottleneck
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.parts import part
from pyrafuse.core.pyramid import Backbone, Neck, Pyramid, PyramidSpec
from pyrafuse.layers.aspp import FeedbackASPP
from pyrafuse.layers.conv import ZeroConv2d
from pyrafuse.layers.switchable_atrous import switch_convs
from pyrafuse.layers.weight_standardization import standardize_weights
from pyrafuse.necks.registry import NECKS


class FeedbackTrunk(nn.Module):
    """A ResNet that takes features into its stages: images and pyramid -> the ResNet's maps.

    In the first block of each stage a 1x1 convolution of the fed-back level of the same stride is added to the block's
    sum, before its last ReLU. The convolutions start at zero, so that pretrained weights keep their function; the first
    stage takes nothing.

    Args:
        trunk: ResNet of this round.
        neck: What gives the pyramid that is fed back.
        channels: Channels of the fed-back features.

    Raises:
        PyrafuseError: If the trunk is no ResNet, or no level of the neck has the stride of one of its later stages.
    """

    def __init__(self, trunk: StagedBackbone, neck: Neck, *, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.feedback = nn.ModuleDict()
        self._levels: dict[int, int] = {}
        taps = zip(trunk.taps, trunk.features.channels, trunk.features.strides, strict=True)
        for stage, out_channels, stride in taps:
            if stage and stride in neck.features.strides:
                self.feedback[str(stage)] = ZeroConv2d(channels, out_channels)
                self._levels[stage] = neck.features.strides.index(stride)
        if not self._levels:
            raise PyrafuseError(
                f"nothing to feed back: the neck's levels have strides {neck.features.strides}, the backbone's maps"
                f" {trunk.features.strides}, and its first stage takes none"
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Which levels of the pyramid are fed back."""
        return tuple(self._levels.values())

    def forward(self, images: Tensor, fed: Mapping[int, Tensor]) -> Pyramid:
        """The maps, with the features ``fed``, (B, C, H_l, W_l) by their level in the pyramid."""
        x = self.trunk.stem(images)
        maps = []
        for i, stage in enumerate(self.trunk.stages):
            first, *rest = stage.children()
            x = self._feed(first, x, i, fed) if i in self._levels else first(x)
            for block in rest:
                x = block(x)
            maps.append(x)
        return tuple(maps[tap] for tap in self.trunk.taps)

    def _feed(self, block: nn.Module, x: Tensor, stage: int, fed: Mapping[int, Tensor]) -> Tensor:
        assert isinstance(block, BasicBlock | Bottleneck)
        return F.relu(block.add(x) + self.feedback[str(stage)](fed[self._levels[stage]]))


class RecursiveFPN(Backbone):
    """Images (B, 3, H, W) -> the pyramid of the last round; a detector has `IdentityNeck` behind it.

    Each round has a trunk of its own; the neck, the ASPP between the rounds and the fusion are shared by all. The new
    pyramid is fused with the last by a weight at each position, the sigmoid of a 1x1 convolution of the new one.

    Args:
        trunks: One ResNet a round, two or more, with maps at the same strides.
        neck: Maps -> pyramid, of equal channels in all levels.
        aspp_channels: Channels of each of the ASPP's branches; by default the pyramid's divided by their number.
        aspp_dilations: Dilations of the branches, as in `FeedbackASPP`.

    Raises:
        PyrafuseError: If there are fewer than two trunks, they differ or are no ResNets, or the levels differ in
            channels.
    """

    def __init__(
        self,
        trunks: Sequence[Backbone],
        neck: Neck,
        *,
        aspp_channels: int | None = None,
        aspp_dilations: tuple[int, ...] = (1, 3, 6, 1),
    ) -> None:
        super().__init__()
        resnets = [_check_resnet(trunk) for trunk in trunks]
        if len(resnets) < 2 or any(trunk.features != resnets[0].features for trunk in resnets):
            raise PyrafuseError(
                "a recursive pyramid needs a trunk for each of two rounds or more, with equal maps; got"
                f" {[(trunk.features.channels, trunk.features.strides) for trunk in resnets]}"
            )
        channels = neck.features.channels[0]
        if set(neck.features.channels) != {channels}:
            raise PyrafuseError(f"levels of equal channels can be fed back, got {neck.features.channels}")
        if aspp_channels is None:
            aspp_channels = max(1, channels // len(aspp_dilations))
        self.trunk = resnets[0]
        self.neck = neck
        self.aspp = FeedbackASPP(channels, aspp_channels, dilations=aspp_dilations)
        self.rounds = nn.ModuleList(
            FeedbackTrunk(trunk, neck, channels=self.aspp.out_channels) for trunk in resnets[1:]
        )
        self.fusion = ZeroConv2d(channels, 1)
        self.features = neck.features

    def forward(self, images: Tensor) -> Pyramid:
        pyramid = self.neck(self.trunk(images))
        for again in self.rounds:
            assert isinstance(again, FeedbackTrunk)
            fed = {level: self.aspp(pyramid[level]) for level in again.levels}
            found = self.neck(again(images, fed))
            pyramid = tuple(self._fuse(old, new) for old, new in zip(pyramid, found, strict=True))
        return pyramid

    def _fuse(self, old: Tensor, new: Tensor) -> Tensor:
        weight = self.fusion(new).sigmoid()
        return weight * new + (1 - weight) * old


@BACKBONES.register(
    "recursive_fpn",
    makers={"backbone": BACKBONES, "neck": NECKS},
    defaults={"backbone": part("resnet50", strides=(4, 8, 16, 32)), "neck": part("fpn", num_levels=5)},
)
def recursive_fpn(
    *,
    backbone: Callable[[], Backbone],
    neck: Callable[[PyramidSpec], Neck],
    num_rounds: int = 2,
    standardized: bool = True,
    switchable: bool = False,
    aspp_channels: int | None = None,
    aspp_dilations: tuple[int, ...] = (1, 3, 6, 1),
) -> RecursiveFPN:
    """A recursive pyramid of a backbone and a neck; the defaults are DetectoRS's.

    As a detector's backbone it brings its own neck: take ``identity`` behind it.

    Args:
        backbone: Makes the trunk of a round, a ResNet.
        neck: Makes the neck, with equal channels in all levels, on the trunk's maps.
        num_rounds: How often the backbone looks, two or more.
        standardized: Standardise the backbones' weights (`ConvAWS`).
        switchable: Deformable switchable atrous convolution for the 3x3 ones of all stages but the first.
        aspp_channels: Channels of each branch of the ASPP.
        aspp_dilations: Dilations of the ASPP's branches.

    Raises:
        PyrafuseError: On the same faults as `RecursiveFPN`.
    """
    trunks = [_check_resnet(backbone()) for _ in range(num_rounds)]
    for trunk in trunks:
        if standardized:
            standardize_weights(trunk)
        if switchable:
            for stage in trunk.stages[1:]:
                switch_convs(stage, deform=True)
    if not trunks:
        raise PyrafuseError(f"a recursive pyramid has two rounds or more, got num_rounds={num_rounds}")
    return RecursiveFPN(trunks, neck(trunks[0].features), aspp_channels=aspp_channels, aspp_dilations=aspp_dilations)


def _check_resnet(trunk: Backbone) -> StagedBackbone:
    if isinstance(trunk, StagedBackbone) and all(
        isinstance(next(stage.children()), BasicBlock | Bottleneck) for stage in trunk.stages
    ):
        return trunk
    raise PyrafuseError(
        f"a recursive pyramid feeds back into residual blocks, which {type(trunk).__name__} has none of; take a resnet,"
        " resnext or eca_resnet"
    )
