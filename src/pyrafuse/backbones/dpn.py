"""Dual path networks: a residual path and a densely growing one through the same bottlenecks.

Chen et al., "Dual Path Networks", arXiv:1707.01629. images -> stem and pool -> four stages -> maps
A map is the raw concatenation [residual channels | dense channels]; every convolution normalises what it reads, so the
norm after the last stage belongs to the classifier.
"""

import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import StagedBackbone
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.layers.conv import create_activation, initialize

NORM_EPS = 1e-3


@dataclass(frozen=True)
class DPNForm:
    """What tells one dual path network from another (arXiv:1707.01629, table 1).

    Attributes:
        stem: Channels of the stem.
        stem_kernel: Kernel size of the stem.
        residual: Channels of the first stage's residual path; each later stage doubles them.
        bottleneck: Channels of the first stage's 3x3 convolutions; each later stage doubles them.
        groups: Groups of the 3x3 convolutions.
        depths: Blocks a stage.
        growth: Channels that the dense path gains in each block of a stage.
        is_split: The last 1x1 of a block is two convolutions, one a path, on one norm (the "b" networks).
        activation: Activation of the stem and of the classifier's norm; blocks have ReLU in any case.
    """

    stem: int
    stem_kernel: int
    residual: int
    bottleneck: int
    groups: int
    depths: tuple[int, ...]
    growth: tuple[int, ...]
    is_split: bool = False
    activation: str = "relu"

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each stage's map: the first block brings three times the growth, each later one its own."""
        return tuple(
            self.residual * 2**i + (depth + 2) * growth
            for i, (depth, growth) in enumerate(zip(self.depths, self.growth, strict=True))
        )


FORMS = {
    # timm's 48b: its SiLU reaches the stem and the closing norm alone
    "dpn48b": DPNForm(10, 3, 64, 128, 32, (3, 4, 6, 3), (16, 32, 32, 64), is_split=True, activation="silu"),
    "dpn68": DPNForm(10, 3, 64, 128, 32, (3, 4, 12, 3), (16, 32, 32, 64)),
    "dpn68b": DPNForm(10, 3, 64, 128, 32, (3, 4, 12, 3), (16, 32, 32, 64), is_split=True),
    "dpn92": DPNForm(64, 7, 256, 96, 32, (3, 4, 20, 3), (16, 32, 24, 128)),
    "dpn98": DPNForm(96, 7, 256, 160, 40, (3, 6, 20, 3), (16, 32, 32, 128)),
    "dpn107": DPNForm(128, 7, 256, 200, 50, (4, 8, 20, 3), (20, 64, 64, 128)),
    "dpn131": DPNForm(128, 7, 256, 160, 40, (4, 8, 28, 3), (16, 32, 32, 128)),
}


class PreActivation(nn.Module):
    """Batch norm, activation, convolution without bias; without the convolution if ``out_channels`` is none."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels, eps=NORM_EPS)
        self.activation = create_activation(activation)
        self.conv = (
            nn.Identity()
            if out_channels is None
            else nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.activation(self.norm(x)))


class DualPathBlock(nn.Module):
    """(B, C, H, W) -> (B, C', H', W'): the first ``residual`` channels are added to, the others grow by ``growth``.

    Args:
        in_channels: C. With ``projects`` they are all projected, to ``residual`` + 2 ``growth`` channels.
        residual: Channels of the residual path.
        growth: Channels that the bottleneck appends to the dense path.
        bottleneck: Channels of its 3x3 convolution.
        groups: Groups of its 3x3 convolution.
        stride: Stride of its 3x3 convolution and of the projection.
        projects: Whether this is the first block of a stage.
        is_split: Whether the last 1x1 is two convolutions, one a path, on one norm.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        residual: int,
        growth: int,
        bottleneck: int,
        groups: int,
        stride: int = 1,
        projects: bool = False,
        is_split: bool = False,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.project = PreActivation(in_channels, residual + 2 * growth, stride=stride) if projects else nn.Identity()
        self.reduce = PreActivation(in_channels, bottleneck)
        self.grouped = PreActivation(bottleneck, bottleneck, 3, stride=stride, groups=groups)
        self.expand = PreActivation(bottleneck, None if is_split else residual + growth)
        self.paths = (
            nn.ModuleList(nn.Conv2d(bottleneck, width, 1, bias=False) for width in (residual, growth))
            if is_split
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.project(x)
        y = self.expand(self.grouped(self.reduce(x)))
        if self.paths is None:
            added, grown = y[:, : self.residual], y[:, self.residual :]
        else:
            added, grown = self.paths[0](y), self.paths[1](y)
        return torch.cat((shortcut[:, : self.residual] + added, shortcut[:, self.residual :], grown), dim=1)


def dpn(
    *,
    stem: int,
    stem_kernel: int,
    residual: int,
    bottleneck: int,
    groups: int,
    depths: Sequence[int],
    growth: Sequence[int],
    is_split: bool = False,
    activation: str = "relu",
    strides: Sequence[int] = (8, 16, 32),
    frozen_stages: int = -1,
    norm_eval: bool = False,
    weights: str | os.PathLike[str] | None = None,
) -> StagedBackbone:
    """A dual path network.

    Args:
        stem: Channels of the stem.
        stem_kernel: Kernel size of the stem.
        residual: Residual channels of the first stage.
        bottleneck: Bottleneck channels of the first stage.
        groups: Groups of the 3x3 convolutions.
        depths: Number of blocks of each stage.
        growth: Channels that each block of a stage appends.
        is_split: Whether the last 1x1 convolution of a block is two convolutions.
        activation: Activation of the stem and of the classifier's norm.
        strides: Which maps to give, of 4, 8, 16 and 32.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and n stages.
        norm_eval: Batch norms keep to their stored statistics in training.
        weights: Published checkpoint in timm's keys; a file, or ``timm/NAME``.

    Raises:
        PyrafuseError: If there is no such map or stage.
        CheckpointError: If ``weights`` do not fit.
    """
    form = DPNForm(
        stem, stem_kernel, residual, bottleneck, groups, tuple(depths), tuple(growth), is_split, activation
    )  # fmt: skip
    before, stages = form.stem, []
    for i, (depth, gain, channels) in enumerate(zip(form.depths, form.growth, form.channels, strict=True)):
        width = residual * 2**i
        block = partial(
            DualPathBlock,
            residual=width,
            growth=gain,
            bottleneck=bottleneck * 2**i,
            groups=groups,
            is_split=is_split,
        )
        first = block(before, stride=1 if i == 0 else 2, projects=True)
        rest = (block(width + (n + 2) * gain) for n in range(1, depth))
        stages.append(nn.Sequential(first, *rest))
        before = channels
    backbone = StagedBackbone(
        _stem(form),
        stages,
        channels=form.channels,
        stage_strides=(4, 8, 16, 32),
        strides=strides,
        frozen_stages=frozen_stages,
        norm_eval=norm_eval,
    )
    initialize(backbone, slope=0)
    if weights is not None:
        unused = (r"classifier\.", r"features\.conv5_bn_ac\.", rf"features\.conv[{len(backbone.stages) + 2}-9]_\d")
        load_exactly(backbone, read_published(weights), source=weights, naming=name_dpn, unused=unused, model="DPN")
    return backbone


def name_dpn(key: str) -> str:
    """The published key (timm's and its forerunners') of a dual path network's key."""
    found = re.match(r"stages\.(\d)\.(\d+)\.(.*)", key)
    if not found:
        return key.replace("stem.", "features.conv1_1.").replace(".norm.", ".bn.")
    stage, block, part = int(found[1]), int(found[2]), found[3]
    return f"features.conv{stage + 2}_{block + 1}.{name_dpn_part(part, strides=stage > 0)}"


def name_dpn_part(key: str, *, strides: bool) -> str:
    """The published key of a block's key; the projection of a stage that ``strides`` has a name of its own."""
    published = {
        "project": "c1x1_w_s2" if strides else "c1x1_w_s1",
        "reduce": "c1x1_a",
        "grouped": "c3x3_b",
        "expand": "c1x1_c",
    }
    part, _, rest = key.replace(".norm.", ".bn.").partition(".")
    return re.sub(r"^paths\.(\d)", lambda path: f"c1x1_c{int(path[1]) + 1}", f"{published.get(part, part)}.{rest}")


def _stem(form: DPNForm) -> nn.Sequential:
    size = form.stem_kernel
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, form.stem, size, stride=2, padding=size // 2, bias=False),
            norm=nn.BatchNorm2d(form.stem, eps=NORM_EPS),
            activation=create_activation(form.activation),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


for _name, _form in FORMS.items():
    BACKBONES.add(_name, partial(dpn, **vars(_form)))
