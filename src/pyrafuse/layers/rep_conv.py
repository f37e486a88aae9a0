"""Convolutions that learn in two branches and predict as one, and blocks of them.

Ding et al., "RepVGG", arXiv:2101.03697, without the branch that passes x; blocks as in DAMO-YOLO, arXiv:2211.15444,
section 2.2, and RT-DETR, arXiv:2304.08069, section 4.2.
x -> 3x3 convolution and norm + 1x1 convolution and norm -> activation
"""

from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.layers.conv import ConvNormAct, create_activation
from pyrafuse.layers.folding import fold

M = TypeVar("M", bound=nn.Module)


class RepConv(nn.Module):
    """A 3x3 and a 1x1 convolution, each with batch norm, added, then ``activation``."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: str) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, out_channels, 3, activation="none")
        self.point: ConvNormAct | None = ConvNormAct(in_channels, out_channels, 1, activation="none")
        self.activation = create_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv(x)
        if self.point is not None:
            total = total + self.point(x)
        return self.activation(total)

    @torch.no_grad()
    def merge(self) -> None:
        """Become one 3x3 convolution for good: of both branches as they are in evaluation mode."""
        if self.point is None:
            return
        old = self.conv.conv
        (weight, bias), (point, shift) = (
            fold(deepcopy(part.conv).double(), deepcopy(part.norm).double())  # pyright: ignore[reportArgumentType]
            for part in (self.conv, self.point)
        )
        merged = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1).to(old.weight)
        merged.weight.copy_(weight + F.pad(point, (1, 1, 1, 1)))
        merged.bias = nn.Parameter((bias + shift).to(old.weight))
        self.conv.conv, self.conv.norm, self.point = merged, nn.Identity(), None


def merge_branches(module: nn.Module) -> None:
    """Merge every `RepConv` of ``module``, which cannot be trained on afterwards."""
    for part in module.modules():
        if isinstance(part, RepConv):
            part.merge()


def merged(module: M) -> M:
    """A copy of ``module`` in which every `RepConv` is merged; ``module`` itself where it has none."""
    if not any(isinstance(part, RepConv) for part in module.modules()):
        return module
    twin = deepcopy(module)
    merge_branches(twin)
    return twin


class RepELAN(nn.Module):
    """x (B, C, H, W) -> (B, C_out, H, W): a part of it passes units, and all that they give is concatenated.

    Two 1x1 convolutions give a half of C_out each. One half passes ``depth`` units, x + 3x3(`RepConv` of x); a 1x1
    convolution reads the other half and every unit's output.
    """

    def __init__(self, in_channels: int, out_channels: int, *, depth: int, activation: str) -> None:
        super().__init__()
        width = max(1, out_channels // 2)
        self.short = ConvNormAct(in_channels, width, activation=activation)
        self.long = ConvNormAct(in_channels, width, activation=activation)
        self.units = nn.ModuleList(
            nn.Sequential(
                RepConv(width, width, activation=activation), ConvNormAct(width, width, 3, activation=activation)
            )
            for _ in range(depth)
        )
        self.join = ConvNormAct((1 + depth) * width, out_channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        found, x = [self.short(x)], self.long(x)
        for unit in self.units:
            x = x + unit(x)
            found.append(x)
        return self.join(torch.cat(found, dim=1))


class RepCSP(nn.Module):
    """x (B, C, H, W) -> (B, C_out, H, W): a 1x1 convolution, plus another that ``depth`` of `RepConv` follow."""

    def __init__(self, in_channels: int, out_channels: int, *, depth: int, activation: str) -> None:
        super().__init__()
        self.short = ConvNormAct(in_channels, out_channels, activation=activation)
        self.long = nn.Sequential(
            ConvNormAct(in_channels, out_channels, activation=activation),
            *(RepConv(out_channels, out_channels, activation=activation) for _ in range(depth)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.short(x) + self.long(x)
