"""Switchable atrous convolution: each cell decides how far apart the taps are.

Qiao et al., "DetectoRS", arXiv:2006.02334, section 4. global context -> two dilations of one weight, mixed -> context
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.layers.conv import ZeroConv2d
from pyrafuse.layers.deformable import deformable_conv
from pyrafuse.layers.weight_standardization import ConvAWS

ATROUS = 3
"""How much farther apart the taps of the second convolution are."""


class SwitchableAtrousConv(ConvAWS):
    """(B, C, H, W) -> (B, C_out, H', W'): switch * near(x) + (1 - switch) * far(x), global context before and after.

    ``near`` and ``far`` share one standardised weight, to which ``far`` adds a difference that starts at zero, and
    dilates three times as much. The switch (B, 1, H', W') is linear in the mean of 5x5 cells around; it starts at 1.
    Both contexts add a 1x1 convolution of the global mean, zero at first. So a fresh layer is a standardised
    convolution, and a pretrained one keeps its function.

    Args:
        in_channels: Number of input channels, C.
        out_channels: Number of output channels, C_out.
        kernel_size: Taps a side.
        stride: Stride of the convolution.
        padding: Padding of ``near``; ``far`` has three times as much. By default what keeps the size at stride 1.
        dilation: Dilation of ``near``.
        groups: Groups of the convolution.
        bias: Give the convolution one.
        deform: Both convolutions are deformable, with offsets of the 5x5 means that start at zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        deform: bool = False,
    ) -> None:
        self_padding = dilation * (kernel_size - 1) // 2 if padding is None else padding
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=self_padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self._stride, self._padding, self._dilation = stride, self_padding, dilation
        self.weight_diff = nn.Parameter(torch.zeros_like(self.weight))
        self.switch = ZeroConv2d(in_channels, 1, stride=stride, start=1.0)
        self.pre_context = ZeroConv2d(in_channels, in_channels)
        self.post_context = ZeroConv2d(out_channels, out_channels)
        self.offset_near, self.offset_far = None, None
        if deform:
            self.offset_near, self.offset_far = (
                ZeroConv2d(in_channels, 2 * kernel_size**2, 3, stride=stride, padding=1) for _ in range(2)
            )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = input + self.pre_context(input.mean((2, 3), keepdim=True))
        around = _mean5x5(x)
        switch = self.switch(around)
        weight = self.standardized_weight()
        near = self._convolve(x, weight, around, self.offset_near, 1)
        far = self._convolve(x, weight + self.weight_diff, around, self.offset_far, ATROUS)
        out = switch * near + (1 - switch) * far
        return out + self.post_context(out.mean((2, 3), keepdim=True))

    def _convolve(
        self, x: Tensor, weight: Tensor, around: Tensor, find_offsets: nn.Conv2d | None, spread: int
    ) -> Tensor:
        padding, dilation = self._padding * spread, self._dilation * spread
        if find_offsets is None:
            return F.conv2d(x, weight, self.bias, self._stride, padding, dilation, self.groups)
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.weight.dtype
            x, weight, offset = x.to(dtype), weight.to(dtype), find_offsets(around.to(dtype))
            return deformable_conv(
                x, offset, weight, self.bias, stride=self._stride, padding=padding, dilation=dilation
            )


def switch_convs(module: nn.Module, *, deform: bool) -> None:
    """Replace the 3x3 convolutions inside ``module`` by switchable ones of the same weights, in place.

    What they compute stays the same but for the 1e-5 in the deviation.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and type(child) in (nn.Conv2d, ConvAWS) and child.kernel_size == (3, 3):
                setattr(parent, name, _as_switchable(child, deform=deform))


def _as_switchable(conv: nn.Conv2d, *, deform: bool) -> SwitchableAtrousConv:
    (stride, _), (dilation, _), padding = conv.stride, conv.dilation, conv.padding
    assert not isinstance(padding, str)
    twin = SwitchableAtrousConv(
        conv.in_channels,
        conv.out_channels,
        stride=stride,
        padding=padding[0],
        dilation=dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
        deform=deform,
    )
    twin.to(device=conv.weight.device, dtype=conv.weight.dtype)
    twin.take_over(conv)
    return twin


def _mean5x5(x: Tensor) -> Tensor:
    """Mean of the 5x5 cells around each cell, the map mirrored at its edges; a map of under 3 cells repeats them."""
    mode = "reflect" if min(x.shape[2:]) > 2 else "replicate"
    return F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode=mode), 5, stride=1)
