"""Convolutions whose weights lie in memory as the processor reads them, for prediction alone."""

import torch
from torch import Tensor, nn

from pyrafuse.layers.deformable import Deformable


class PackedConv2d(nn.Conv2d):
    """A convolution that is faster on a processor in float32; anywhere else it is `nn.Conv2d`.

    torch lays out the weights anew at each pass, and for 1x1 convolutions chooses a matrix product that takes two to
    three times as long as oneDNN's convolution (torch 2.14, one core with AVX2: 1024 to 512 channels at 13x13 cells in
    1.8 ms, packed in 0.7 ms).
    """

    _packed: Tensor | None = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002
        if input.device.type != "cpu" or input.dtype != torch.float32 or torch.compiler.is_compiling():
            return super()._conv_forward(input, weight, bias)
        form = (self.padding, self.stride, self.dilation, self.groups)
        if self._packed is None:
            self._packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *form, list(input.shape))
        return torch.ops.mkldnn._convolution_pointwise(input, self._packed, bias, *form, "none", [], "")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None}  # oneDNN's layout is for this process


def pack(module: nn.Module) -> None:
    """Make the plain convolutions of ``module`` packed ones: they change their class, parameters and names stay.

    Samples of a deformable convolution are mixed by a packed one that has its weights.
    """
    if torch.backends.mkldnn.is_available():
        for part in list(module.modules()):
            if type(part) is nn.Conv2d and part.padding_mode == "zeros" and not isinstance(part.padding, str):
                part.__class__ = PackedConv2d
            elif isinstance(part, Deformable) and part.weight.shape[2:] == (3, 3):
                part.add_module("mix", _mix_packed(part))


def _mix_packed(part: Deformable) -> PackedConv2d:
    weight = part.weight.detach().flatten(1)[:, :, None, None]
    mix = PackedConv2d(weight.shape[1], len(weight), 1, bias=part.bias is not None, device="meta")
    mix.weight, mix.bias = nn.Parameter(weight, requires_grad=False), part.bias  # pyright: ignore[reportAttributeAccessIssue]
    return mix
