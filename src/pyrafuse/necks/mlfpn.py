"""Multi-level feature pyramid network: several pyramids in a row, each built on the one before, joined scale by scale.

Zhao et al., "M2Det", arXiv:1811.04533, section 3. What the text leaves open is as in the authors' released code.
maps -> FFMv1 = base; (base reduced [, last pyramid's largest map]) -> TUM -> pyramid, and again; all pyramids -> SFAM
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize, upsample_to
from pyrafuse.layers.padding import pad_to
from pyrafuse.necks.registry import NECKS

REDUCTION = 16
"""Of the channel attention in SFAM."""


class FFMv1(nn.Module):
    """Feature fusion of the backbone's maps into the base feature, at the size of the finest.

    The finest map passes a 3x3 convolution, every other a 1x1 one and nearest-neighbour resizing; then they are
    concatenated. The paper has two maps; further ones join in the same way as the second.

    Args:
        channels: Channels of the maps, finest first.
        shallow_channels: Channels of the finest map's part.
        deep_channels: Channels of every other map's part.
    """

    def __init__(self, channels: Sequence[int], *, shallow_channels: int, deep_channels: int) -> None:
        super().__init__()
        finest, *coarser = channels
        self.shallow = ConvNormAct(finest, shallow_channels, 3, activation="relu")
        self.deep = nn.ModuleList(ConvNormAct(c, deep_channels, 1, activation="relu") for c in coarser)
        self.out_channels = shallow_channels + deep_channels * len(coarser)

    def forward(self, pyramid: Pyramid) -> Tensor:
        shallow = self.shallow(pyramid[0])
        deep = [upsample_to(conv(x), shallow.shape[2:]) for conv, x in zip(self.deep, pyramid[1:], strict=True)]
        return torch.cat((shallow, *deep), dim=1)


class TUM(nn.Module):
    """Thinned U-shape module: x (B, C, H, W) -> a pyramid of ``channels``, largest map first.

    Down by 3x3 convolutions of stride 2, the last of stride 1 and without padding (5x5 -> 3x3 -> 1x1; a map too small
    for it is padded until one cell remains); up by nearest neighbours, each map added to a 3x3 convolution of the one
    from the way down; then smoothed by a 1x1 convolution, all but the smallest. The way up goes on with maps that are
    not smoothed. Batch norm and ReLU follow every convolution, nothing the sums.

    Args:
        in_channels: Number of input channels, C.
        channels: Channels of every map.
        num_scales: Maps of the pyramid, 2 or more.
        smooth: Whether they are smoothed.
    """

    def __init__(self, in_channels: int, channels: int, *, num_scales: int, smooth: bool) -> None:
        super().__init__()

        def conv(before: int, kernel_size: int, *, stride: int = 1, padding: int | None = None) -> ConvNormAct:
            return ConvNormAct(before, channels, kernel_size, stride=stride, padding=padding, activation="relu")

        last = num_scales - 2
        self.down = nn.ModuleList(
            conv(channels, 3, padding=0) if i == last > 0 else conv(channels if i else in_channels, 3, stride=2)
            for i in range(num_scales - 1)
        )
        self.top = conv(channels, 1)
        self.laterals = nn.ModuleList(conv(channels if i else in_channels, 3) for i in range(num_scales - 1))
        self.smooth = nn.ModuleList(conv(channels, 1) if smooth else nn.Identity() for _ in range(num_scales - 1))

    def forward(self, x: Tensor) -> Pyramid:
        maps = [x]
        for i, down in enumerate(self.down):
            is_unpadded = i == len(self.down) - 1 > 0
            maps.append(down(pad_to(maps[-1], 3) if is_unpadded else maps[-1]))
        above = self.top(maps.pop())
        out = [above]
        for lateral, smooth, below in reversed(list(zip(self.laterals, self.smooth, maps, strict=True))):
            above = upsample_to(above, below.shape[2:]) + lateral(below)
            out.append(smooth(above))
        return tuple(reversed(out))


class SFAM(nn.Module):
    """Scale-wise feature aggregation with attention to channels: maps (B, C, H_s, W_s) -> the same, reweighed.

    One pair of 1x1 convolutions serves all scales: global mean -> C / 16 -> ReLU -> C -> sigmoid -> times the map.

    Args:
        channels: C, of the concatenated levels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // REDUCTION)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.expand = nn.Conv2d(width, channels, 1)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return tuple(x * self._attention(x) for x in pyramid)

    def _attention(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


@NECKS.register("mlfpn")
class MLFPN(Neck):
    """M2Det's neck. The released detectors have ``attention=False``: they only concatenate.

    The largest map passes a batch norm at the end, as in the released code; it is not in the paper. The stride said of
    a scale is twice that of the one before, also of the smallest, whose side is two cells less than the one before.

    Args:
        inputs: What the backbone gives; M2Det's is strides 8 and 16.
        num_levels: TUMs in a row.
        num_scales: Maps that go out, 2 or more.
        channels: Channels of each TUM's maps, even; the maps that go out have ``num_levels`` times as many.
        shallow_channels: Channels of the finest map in the base feature.
        deep_channels: Channels of every other map in it.
        attention: SFAM's attention to channels.
        smooth: 1x1 convolutions behind the TUMs.

    Raises:
        ValueError: If there are no levels, fewer than 2 scales, or ``channels`` is odd.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        num_levels: int = 8,
        num_scales: int = 6,
        channels: int = 256,
        shallow_channels: int = 256,
        deep_channels: int = 512,
        attention: bool = True,
        smooth: bool = True,
    ) -> None:
        super().__init__()
        if num_levels < 1 or num_scales < 2 or channels < 2 or channels % 2:
            raise ValueError(
                "MLFPN needs 1 level, 2 scales and an even number of channels or more, got"
                f" num_levels={num_levels}, num_scales={num_scales}, channels={channels}"
            )
        self.base = FFMv1(inputs.channels, shallow_channels=shallow_channels, deep_channels=deep_channels)
        # FFMv2's reduction: one convolution, shared by all levels
        self.reduce = ConvNormAct(self.base.out_channels, channels // 2, 1, activation="relu")
        self.tums = nn.ModuleList(
            TUM(channels // 2 + (channels if i else 0), channels, num_scales=num_scales, smooth=smooth)
            for i in range(num_levels)
        )
        joined = num_levels * channels
        self.sfam = SFAM(joined) if attention else None
        self.norm = nn.BatchNorm2d(joined)
        self.features = PyramidSpec(
            channels=(joined,) * num_scales, strides=tuple(inputs.strides[0] * 2**i for i in range(num_scales))
        )
        initialize(self, slope=0)
        for part in self.modules():
            if isinstance(part, ConvNormAct) and isinstance(part.norm, nn.BatchNorm2d):
                part.norm.momentum = 0.01

    def forward(self, pyramid: Pyramid) -> Pyramid:
        reduced = self.reduce(self.base(pyramid))
        pyramids: list[Pyramid] = []
        for tum in self.tums:
            pyramids.append(tum(torch.cat((reduced, pyramids[-1][0]), dim=1) if pyramids else reduced))
        scales = tuple(torch.cat(levels, dim=1) for levels in zip(*pyramids, strict=True))
        largest, *smaller = scales if self.sfam is None else self.sfam(scales)
        return (self.norm(largest), *smaller)
