"""What half precision does badly, kept out of it."""

import torch
from torch import Tensor, nn


class StridedDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with a stride, in float32 on a processor, whatever autocast says.

    There is no fast kernel for its gradient in bfloat16: three of them took a seventh of MobileNetV2's training step,
    and take a tenth of that in float32. The output has the input's type.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.device.type != "cpu" or not input.requires_grad:
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return super()._conv_forward(input.float(), weight, bias).to(input.dtype)


def spare_strided_depthwise(module: nn.Module) -> None:
    """Make every depthwise convolution in ``module`` that has a stride a `StridedDepthwiseConv2d`, in place."""
    for part in module.modules():
        if type(part) is nn.Conv2d and part.groups == part.in_channels > 1 and max(part.stride) > 1:
            part.__class__ = StridedDepthwiseConv2d  # alike in all but how it computes: parameters and names stay


class SmallMapConv2d(nn.Conv2d):
    """A convolution that computes in float32 on a processor where a map is smaller than the kernel.

    Taps that see padding alone have a gradient of zero. oneDNN's bfloat16 kernels do not write it where they stride
    over a map of one cell: the gradient is then what lay in memory, often NaN. Such maps cost next to nothing in
    float32. The output has the input's type.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        spans = (d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))
        is_covered = all(side >= span for side, span in zip(input.shape[-2:], spans, strict=True))
        if is_covered or input.device.type != "cpu" or not weight.requires_grad:
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return super()._conv_forward(input.float(), weight, bias).to(input.dtype)


def spare_small_maps(module: nn.Module) -> None:
    """Make every convolution in ``module`` of more than one tap a `SmallMapConv2d`, in place."""
    for part in module.modules():
        if type(part) is nn.Conv2d and max(part.kernel_size) > 1:
            part.__class__ = SmallMapConv2d
