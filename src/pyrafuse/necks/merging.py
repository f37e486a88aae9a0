"""What merges of a pyramid are made of: ways from one level to another, and fusions.

Each paper's own words: bottom-up strided convolutions (PANet, arXiv:1803.01534), global attention (NAS-FPN,
arXiv:1904.07392), fast normalized fusion (BiFPN, arXiv:1911.09070), softmax at every position (ASFF, arXiv:1911.09516),
reassembly (CARAFE, arXiv:1905.02188), alignment (FaPN, arXiv:2108.07058), injection (Gold-YOLO, arXiv:2309.11331).
(x of a source, project -> resize) for each source -> fuse
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.core.tracing import is_traced, lacking
from pyrafuse.layers.alignment import AlignedUpsampling
from pyrafuse.layers.carafe import CARAFE
from pyrafuse.layers.conv import ConvNormAct, create_activation, upsample_to
from pyrafuse.layers.fusion_weights import FusionWeights
from pyrafuse.layers.pooling import max_of_windows
from pyrafuse.necks.convolving import NORMS, Conv, Convolution
from pyrafuse.necks.resizing import Resize

Size = Sequence[int]
"""Cells down and across."""


class SameMaxPool(nn.Module):
    """Max-pool 3x3 of stride 2 with TensorFlow's "same" padding: an even side is padded at its end alone."""

    def forward(self, x: Tensor) -> Tensor:
        top, left = (side % 2 for side in x.shape[-2:])
        x = F.pad(x, (left, 1, top, 1), value=-math.inf)
        return F.max_pool2d(x, 3, stride=2)


class FloorMaxPool(nn.Module):
    """Max-pool 2x2 of stride 2 that drops an odd last row, but never the only one."""

    def forward(self, x: Tensor) -> Tensor:
        if (missing := lacking(x, 2)) is not None:
            x = F.pad(x, (0, missing[1], 0, missing[0]), value=-math.inf)
        return F.max_pool2d(x, 2)


def max_pool_to(x: Tensor, size: Size, *, ratio: int = 2) -> Tensor:
    """Max-pool x (B, C, H, W) to ``size`` with windows that do not overlap.

    Where a side is no multiple of the wished one, zeros are put around it first, the odd one behind. A graph, whose
    sizes are free, needs to know about how many times as large x is: ``ratio``.
    """
    kernel = [-(-have // want) for have, want in zip(x.shape[-2:], size, strict=True)]
    down, across = (k * want - have for k, want, have in zip(kernel, size, x.shape[-2:], strict=True))
    if is_traced() or down or across:
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
    if is_traced():  # kernels of a graph are fixed, windows are not
        for dim, (length, want) in enumerate(zip(kernel, size, strict=True), 2):
            starts = length * torch.arange(want, device=x.device)
            x = max_of_windows(x, dim, starts, starts + length, longest=2 * ratio)
        return x
    return F.max_pool2d(x, kernel, stride=kernel)


@dataclass(frozen=True)
class Descent:
    """From a fine level to a coarser one: channels before and after, how often the sides are halved, and by what form
    of convolution.
    """

    before: int
    after: int
    halvings: int
    form: Conv


def _strided(way: Descent) -> nn.Module:
    form = replace(way.form, kernel_size=3)
    first = Convolution(way.before, way.after, form, stride=2)
    return nn.Sequential(first, *(Convolution(way.after, way.after, form, stride=2) for _ in range(way.halvings - 1)))


def _pooled_then_strided(way: Descent) -> nn.Module:
    return Resize((way.before, way.after), (1, 2**way.halvings), activation=way.form.activation).project


class PatchConv(nn.Module):
    """A convolution whose windows do not overlap, with norm and activation; zeros fill up the last ones."""

    def __init__(self, way: Descent) -> None:
        super().__init__()
        self._side = 2**way.halvings
        bias = way.form.norm == "none" if way.form.bias is None else way.form.bias
        self.conv = nn.Conv2d(way.before, way.after, self._side, stride=self._side, bias=bias)
        self.norm = NORMS[way.form.norm](way.after, way.form)
        self.activation = create_activation(way.form.activation)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (-length % self._side for length in x.shape[2:])
        if is_traced() or down or across:
            x = F.pad(x, (0, across, 0, down))
        return self.activation(self.norm(self.conv(x)))


def _repeat(create: Callable[[], nn.Module]) -> Callable[[Descent], nn.Module]:
    return lambda way: create() if way.halvings == 1 else nn.Sequential(*(create() for _ in range(way.halvings)))


DOWN: dict[str, Callable[[Descent], nn.Module]] = {
    "max_pool": _repeat(lambda: nn.MaxPool2d(3, stride=2, padding=1)),
    "max_pool_same": _repeat(SameMaxPool),
    "max_pool_floor": _repeat(FloorMaxPool),
    "max_pool_to_size": lambda _: nn.Identity(),
    "bilinear": lambda _: nn.Identity(),
    "subsample": _repeat(lambda: nn.MaxPool2d(1, stride=2)),
    "avg_pool": _repeat(lambda: nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)),
    "conv": _strided,
    "patch_conv": PatchConv,
    "max_pool_conv": _pooled_then_strided,
}
"""Ways from a fine level to a coarser one.

``max_pool`` 3x3 of stride 2 a level, ``max_pool_same`` with TensorFlow's padding, ``max_pool_floor`` 2x2 without
padding; ``max_pool_to_size`` with windows as large as the sides' ratio; ``bilinear`` between the nearest cells, without
a filter; ``subsample`` every second cell; ``avg_pool`` means of 2x2 a level; ``conv`` 3x3 of stride 2 a level;
``patch_conv`` one convolution with windows as large as the sides' ratio (AFPN); ``max_pool_conv`` max-pools, and for
the last level a 3x3 convolution with batch norm (ASFF).
"""

CONVOLVING = ("conv", "patch_conv", "max_pool_conv")
"""Those ways down that bring the channels along, and need no 1x1 convolution before."""

interpolate_bilinearly = partial(F.interpolate, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Ascent:
    """From a coarse level to a finer one: channels of what is resized, how often its sides are doubled, and channels of
    the merge's first input.
    """

    channels: int
    doublings: int
    guide_channels: int


UP: dict[str, Callable[[Ascent], Callable[[Tensor, Any], Tensor]]] = {
    "nearest": lambda _: partial(F.interpolate, mode="nearest"),
    "bilinear": lambda _: interpolate_bilinearly,
    "carafe": lambda way: CARAFE(way.channels, 2**way.doublings),
    "aligned": lambda way: AlignedUpsampling(way.channels, way.guide_channels),
}
"""Ways from a coarse level to a finer one: what each makes reads the map, and the size that is wished.

``nearest`` and ``bilinear`` interpolate; ``carafe`` takes means of the cells around, with weights made of the map;
``aligned`` takes the nearest cells and aligns them to the merge's first input by a deformable convolution (FaPN).
"""

ALIGNING = ("aligned",)
"""Those ways up that read, in place of the size, the merge's first input, whose level is the merge's own."""

TO_SIZE: dict[str, Callable[[int], Callable[[Tensor, Size], Tensor]]] = {
    "max_pool_to_size": lambda ratio: partial(max_pool_to, ratio=ratio),
    "bilinear": lambda _: interpolate_bilinearly,
}
"""Those ways down that lead straight to the size of the coarser level, by how many times smaller that is."""


class Edge(nn.Module):
    """One source's way into a merge: to the merge's channels, then to its level.

    Args:
        channels: Before and after.
        levels: Numbers of the source's level and of the merge's.
        up: A key of `UP`.
        down: A key of `DOWN`.
        project: The 1x1 convolution where channels differ, and the norm and activation of convolutions on the way down.
        guide_channels: Channels of the merge's first input, for a way up that aligns to it.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        levels: tuple[int, int],
        *,
        up: str,
        down: str,
        project: Conv,
        guide_channels: int = 0,
    ) -> None:
        super().__init__()
        halvings = levels[1] - levels[0]
        brings_channels = halvings > 0 and down in CONVOLVING
        self.project = None if channels[0] == channels[1] or brings_channels else Convolution(*channels, project)
        before = channels[0] if brings_channels else channels[1]
        halve = DOWN[down](Descent(before, channels[1], halvings, project)) if halvings > 0 else nn.Identity()
        self.halve = None if isinstance(halve, nn.Identity) else halve
        self._parts = tuple(part for part in (self.project, self.halve) if part is not None)
        goes_to_size = halvings > 0 and down in TO_SIZE
        self._growth = 2 ** max(-halvings, 0)
        self._shrinkage = 2**halvings if goes_to_size else 1
        self.fit: Callable[[Tensor, Any], Tensor]
        if goes_to_size:
            self.fit = TO_SIZE[down](2**halvings)
        elif halvings < 0:
            self.fit = UP[up](Ascent(channels[1], -halvings, guide_channels))
        else:  # pools and strided convolutions arrive at the size, but for sides that the backbone has cut short
            self.fit = upsample_to
        self._aligns = halvings < 0 and up in ALIGNING
        self._keeps_size = halvings == 0
        self.is_idle = self._keeps_size and not self._parts

    def forward(self, x: Tensor, size: Size | None, arrived: Sequence[Tensor] = ()) -> Tensor:
        """X (B, C, H, W) at ``size``; without one, at the size that the way leads to.

        Args:
            x: What the source gives.
            size: Height and width of the merge's level, where it is known.
            arrived: The merge's inputs before this one, on its level.
        """
        for part in self._parts:
            x = part(x)
        if self._keeps_size:
            return x
        if self._aligns:
            return self.fit(x, arrived[0])
        if size is None:
            size = [-(-side * self._growth // self._shrinkage) for side in x.shape[2:]]
        return self.fit(x, size)


def add(*xs: Tensor) -> Tensor:
    """x1 + x2 + ..."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def concatenate(*xs: Tensor) -> Tensor:
    """Channels of x1, then those of x2, and so on."""
    return torch.cat(xs, dim=1)


def attend_globally(first: Tensor, second: Tensor) -> Tensor:
    """x2 + sigmoid(mean of x2 over all positions) * x1: NAS-FPN's "global pooling"."""
    return second + second.mean(dim=(2, 3), keepdim=True).sigmoid() * first


class Injection(nn.Module):
    """What all levels know, put into one: local(x1) * sigmoid(weigh(x2)) + embed(x2), by 1x1 convolutions with norms.

    Wang et al., "Gold-YOLO", arXiv:2309.11331, section 3. The paper resizes what the convolutions of x2 give; here x2
    itself is resized before them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local, self.weigh, self.embed = (
            ConvNormAct(channels, channels, activation="none") for _ in ("local", "weigh", "embed")
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.local(first) * self.weigh(second).sigmoid() + self.embed(second)


class WeightedSum(nn.Module):
    """One learned weight a source: w1 x1 + w2 x2 + ...

    Tan, Pang and Le, "EfficientDet", arXiv:1911.09070, section 3.3.

    Args:
        weights: What weighs and adds them.
        is_fast: Weights are max(w, 0) / (sum of these + 0.0001), "fast normalized fusion"; else a softmax.
    """

    def __init__(self, weights: FusionWeights, *, is_fast: bool) -> None:
        super().__init__()
        self.edge_weights = nn.Parameter(torch.ones(len(weights.sources)))
        self.weights = weights
        self._is_fast = is_fast

    def forward(self, *xs: Tensor) -> Tensor:
        if self._is_fast:
            weights = self.edge_weights.relu()
            weights = weights / (weights.sum() + 1e-4)
        else:
            weights = self.edge_weights.softmax(dim=0)
        return self.weights(weights, xs)


class SpatialSoftmax(nn.Module):
    """ASFF's fusion: at every position, weights of the sources by a softmax over what 1x1 convolutions see there."""

    def __init__(self, weights: FusionWeights, *, channels: int, weight_channels: int, activation: str) -> None:
        super().__init__()
        count = len(weights.sources)
        self.squeezes = nn.ModuleList(
            ConvNormAct(channels, weight_channels, 1, activation=activation) for _ in range(count)
        )
        self.weigh = nn.Conv2d(weight_channels * count, count, 1)
        self.weights = weights

    def forward(self, *xs: Tensor) -> Tensor:
        logits = self.weigh(torch.cat([squeeze(x) for squeeze, x in zip(self.squeezes, xs, strict=True)], dim=1))
        return self.weights(logits.softmax(dim=1), xs)


@dataclass(frozen=True)
class FusionPlace:
    """Where a fusion stands.

    Attributes:
        output: Name of the merge.
        sources: Names of what it reads.
        stride: Pixels a cell of the merge.
        channels: Channels of every source, and of the result unless they are concatenated.
        weight_channels: Number of channels that ``spatial_softmax`` squeezes each source to.
        activation: Activation of these 1x1 convolutions.
    """

    output: str
    sources: tuple[str, ...]
    stride: int
    channels: int
    weight_channels: int
    activation: str

    def weights(self) -> FusionWeights:
        """What weighs and adds its sources."""
        return FusionWeights(self.output, self.sources, stride=self.stride)


FUSIONS: dict[str, Callable[[FusionPlace], Callable[..., Tensor]]] = {
    "sum": lambda _: add,
    "concat": lambda _: concatenate,
    "fast_normalized": lambda place: WeightedSum(place.weights(), is_fast=True),
    "softmax": lambda place: WeightedSum(place.weights(), is_fast=False),
    "spatial_softmax": lambda place: SpatialSoftmax(
        place.weights(),
        channels=place.channels,
        weight_channels=place.weight_channels,
        activation=place.activation,
    ),
    "global_attention": lambda _: attend_globally,
    "inject": lambda place: Injection(place.channels),
}
"""Ways to make one map of several."""
