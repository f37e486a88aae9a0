"""The pyramid of YOLOv3 with SPP: top-down concatenation through stacks of 1x1 and 3x3 convolutions.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767, with the SPP and DropBlock of arXiv:1911.09516, section 3.1.
C5 -> stack with SPP -> P5; (P5 reduced and upsampled, C4) -> stack -> P4; and so on down
"""

import torch
from torch import nn

from pyrafuse.core.pyramid import Neck, Pyramid, PyramidSpec
from pyrafuse.layers.conv import ConvNormAct, initialize, upsample_to
from pyrafuse.layers.dropblock import DropBlock
from pyrafuse.layers.spp import YOLOSPP
from pyrafuse.necks.registry import NECKS


@NECKS.register("yolo_fpn")
class YOLOFPN(Neck):
    """YOLOv3's pyramid over any number of levels.

    Args:
        inputs: Channels and strides of the backbone's maps.
        channels: Channels of each level, finest first; by default 128, 256, 512 (doubling) times ``width``.
        width: Multiplies the default channels.
        widen: Which levels end in a 3x3 convolution to ``wide_channels``: all for the plain detector (its head
            reads them), the finest for ASFF on Darknet-53, none for ASFF on MobileNetV2.
        wide_channels: Channels of these 3x3 convolutions, a number for each level, finest first; by default twice the
            level's own.
        spp: Pool the coarsest level over 5, 9 and 13 cells.
        activation: A key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        inputs: PyramidSpec,
        *,
        channels: tuple[int, ...] | None = None,
        width: float = 1.0,
        widen: tuple[bool, ...] | None = None,
        wide_channels: tuple[int, ...] | None = None,
        spp: bool = True,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        num_levels = len(inputs)
        channels = (
            tuple(round(512 * width) >> (num_levels - 1 - i) for i in range(num_levels))
            if channels is None
            else channels
        )
        widen = (True,) * num_levels if widen is None else widen
        wide_channels = tuple(2 * c for c in channels) if wide_channels is None else wide_channels
        if not len(channels) == len(widen) == len(wide_channels) == num_levels:
            raise ValueError(
                f"{num_levels} levels come in; channels {channels}, widen {widen} and wide_channels {wide_channels} "
                "must have as many"
            )

        def conv(before: int, after: int, kernel_size: int) -> ConvNormAct:
            return ConvNormAct(before, after, kernel_size, activation=activation)

        def stack(before: int, after: int, *, is_coarsest: bool) -> nn.Sequential:
            pair = (conv(after, 2 * after, 3), DropBlock(), conv(2 * after, after, 1))
            again = (conv(after, 2 * after, 3), conv(2 * after, after, 1))
            if not is_coarsest:
                return nn.Sequential(conv(before, after, 1), *pair, *again)
            pool = (YOLOSPP(), conv(4 * after, after, 1)) if spp else ()
            return nn.Sequential(conv(before, after, 1), *again, *pool, *pair)

        self.stacks = nn.ModuleList()
        self.reductions = nn.ModuleList()
        for level, (before, after) in enumerate(zip(inputs.channels, channels, strict=True)):
            is_coarsest = level == num_levels - 1
            from_above = 0 if is_coarsest else channels[level]
            self.stacks.append(stack(before + from_above, after, is_coarsest=is_coarsest))
            if not is_coarsest:
                self.reductions.append(conv(channels[level + 1], after, 1))
        ends = [wide if is_wide else c for c, wide, is_wide in zip(channels, wide_channels, widen, strict=True)]
        self.widenings = nn.ModuleList(
            conv(c, end, 3) if is_wide else nn.Identity() for c, end, is_wide in zip(channels, ends, widen, strict=True)
        )
        self.features = PyramidSpec(channels=tuple(ends), strides=inputs.strides)
        initialize(self)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        narrow = [self.stacks[-1](pyramid[-1])]
        for level in reversed(range(len(pyramid) - 1)):
            above = upsample_to(self.reductions[level](narrow[0]), pyramid[level].shape[-2:])
            narrow.insert(0, self.stacks[level](torch.cat((above, pyramid[level]), dim=1)))
        return tuple(widen(x) for widen, x in zip(self.widenings, narrow, strict=True))
