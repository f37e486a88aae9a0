"""Deformable convolution, and feature adaption: sampling where the guided anchor shapes say.

Dai et al., "Deformable Convolutional Networks", arXiv:1703.06211; its second version with a weight for every sample,
Zhu et al., arXiv:1811.11168; Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, as used in
arXiv:1911.09516.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d, deform_conv2d

from pyrafuse.core.tracing import is_traced
from pyrafuse.layers.conv import ZeroConv2d
from pyrafuse.layers.rfb import RFB


def deformable_conv3x3(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None = None,
    *,
    mix: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Deformable 3x3 convolution, stride 1, padding 1; equal to `torchvision.ops.deform_conv2d`.

    On a CPU the samples come from `grid_sample`, whose kernels are vectorised and threaded: forward and backward
    together take about a fifth of the time of torchvision's (`benchmarks/deformable.py`). Half precision goes through
    float32 where the kernel does not know it, and on a CPU, where places would be rounded to whole parts of a cell.

    Args:
        x: (B, C, H, W).
        offset: (B, G * 9 * 2, H, W), y and x in cells of each tap of each of the G deformable groups.
        weight: (C_out, C, 3, 3).
        bias: (C_out,).
        mask: (B, G * 9, H, W), what each sample is multiplied with (arXiv:1811.11168).
        mix: On a processor, gives the output for the samples (B, C * 9, H, W) in the place of ``weight`` and ``bias``.
    """
    if x.device.type != "cpu" or is_traced():
        return deformable_conv(x, offset, weight, bias, stride=1, padding=1, dilation=1, mask=mask)
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x, offset, weight, bias, mask = _to_float32(x, offset, weight, bias, mask)
    batch, channels, height, width = x.shape
    groups = offset.shape[1] // 18
    shift = offset.view(batch, groups, 9, 2, height, width)
    tap = torch.arange(-1, 2, dtype=x.dtype)
    rows = torch.arange(height, dtype=x.dtype)[:, None]
    y = shift[:, :, :, 0] + tap.repeat_interleave(3)[:, None, None] + rows
    x_ = shift[:, :, :, 1] + tap.repeat(3)[:, None, None] + torch.arange(width, dtype=x.dtype)
    places = torch.stack(((2 * x_ + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(
        x.reshape(batch * groups, channels // groups, height, width),
        places.view(batch * groups, 9 * height, width, 2),
        align_corners=False,
    )
    if mask is not None:
        samples = sampled.view(batch, groups, channels // groups, 9, height, width)
        sampled = samples * mask.view(batch, groups, 1, 9, height, width)
    if mix is not None:
        return mix(sampled.reshape(batch, channels * 9, height, width)).to(dtype)
    columns = sampled.reshape(batch, channels * 9, height * width)
    out = torch.matmul(weight.flatten(1), columns)
    if bias is not None:
        out = out + bias[:, None]
    return out.view(batch, -1, height, width).to(dtype)


def deformable_conv(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    dilation: int,
    mask: Tensor | None = None,
) -> Tensor:
    """`torchvision.ops.deform_conv2d` of any form; bfloat16, which its kernels do not know, goes through float32."""
    dtype = x.dtype
    if dtype == torch.bfloat16:
        x, offset, weight, bias, mask = _to_float32(x, offset, weight, bias, mask)
    out = deform_conv2d(
        x,
        offset,
        weight,
        bias,
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        mask=mask,
    )
    return out.to(dtype)


def _to_float32(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    bias = None if bias is None else bias.float()
    return x.float(), offset.float(), weight.float(), bias, None if mask is None else mask.float()


class Deformable(nn.Module):
    """A part with the weight (C_out, C, 3, 3) of a deformable convolution, and a bias (C_out,) or none.

    A copy that only predicts may have a faster layer, ``mix``, in their place (`pack`).
    """

    weight: Tensor
    bias: Tensor | None

    def convolve3x3(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """`deformable_conv3x3` with the weight of this part."""
        return deformable_conv3x3(x, offset, self.weight, self.bias, mask, mix=self._modules.get("mix"))


class DeformableConv3x3(Deformable, DeformConv2d):
    """`torchvision.ops.DeformConv2d` of 3x3 taps at stride 1, through `deformable_conv3x3`."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002
        return self.convolve3x3(input, offset, mask)


class DeformableConv2d(Deformable):
    """Deformable convolution that finds its own offsets: (B, C, H, W) -> (B, C_out, H', W').

    A convolution of the same form gives, for each of the deformable groups and taps, how far in cells the tap is moved
    down and right, and in the second version a logit of the sample's weight. Both start at zero: the taps of a plain
    convolution, each with half its weight in the second version.

    Args:
        in_channels: Number of input channels, C.
        out_channels: Number of output channels, C_out.
        kernel_size: Taps a side.
        stride: Stride of the convolution.
        padding: Padding in cells; by default the one that keeps the size at stride 1.
        dilation: Between the taps before they move.
        groups: Groups of the convolution.
        deformable_groups: Groups of input channels with offsets of their own.
        bias: Give the convolution one; its offsets always have one.
        modulated: The second version: weigh every sample (arXiv:1811.11168).

    Raises:
        ValueError: If the channels do not split into the groups.
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
        deformable_groups: int = 1,
        bias: bool = False,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        if in_channels % deformable_groups or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{in_channels} channels in and {out_channels} out do not split into {groups} groups"
                f" and {deformable_groups} deformable groups"
            )
        self.stride = stride
        self.padding = dilation * (kernel_size - 1) // 2 if padding is None else padding
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.offset = ZeroConv2d(
            in_channels,
            (3 if modulated else 2) * deformable_groups * kernel_size**2,
            kernel_size,
            stride=stride,
            padding=self.padding,
            dilation=dilation,
        )
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Conv2d
        self._moves = 2 * deformable_groups * kernel_size**2
        self._is_plain3x3 = (kernel_size, stride, self.padding, dilation, groups) == (3, 1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            moves = self.offset(x)
            offset, logits = moves[:, : self._moves], moves[:, self._moves :]
            mask = logits.sigmoid() if logits.shape[1] else None
            if self._is_plain3x3:
                return self.convolve3x3(x, offset, mask)
            return deformable_conv(
                x,
                offset,
                self.weight,
                self.bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                mask=mask,
            )


class FeatureAdaption(nn.Module):
    """x (B, C, H, W) and guides (B, 2G, H, W) -> (B, C, H, W), sampled where the G guided shapes say.

    Each of the G deformable groups reads the shape of one guided anchor. No gradient returns to the guides from here:
    they learn from the anchor loss.

    Args:
        channels: C, a multiple of ``num_guides``.
        num_guides: G, shapes a cell.
        rfb: Put a receptive field block before the deformable convolution (ASFF*).
    """

    def __init__(self, channels: int, num_guides: int, *, rfb: bool = False) -> None:
        super().__init__()
        if channels % num_guides:
            raise ValueError(f"{channels} channels do not split into {num_guides} groups, one a guided anchor")
        self.rfb = RFB(channels) if rfb else nn.Identity()
        self.offset = nn.Conv2d(2 * num_guides, 2 * 9 * num_guides, 1, groups=num_guides)
        self.conv = DeformableConv3x3(channels, channels)

    def forward(self, x: Tensor, guides: Tensor) -> Tensor:
        # the sampling kernels take no half precision on every device, and the offsets need the bits
        with torch.autocast(x.device.type, enabled=False):
            x = self.rfb(x.to(self.conv.weight.dtype))
            return self.conv(x, self.offset(guides.detach().to(x.dtype)))
