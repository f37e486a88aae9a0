"""Convolutions whose weights are standardised, with the scale and shift of the weights they were loaded with.

Qiao et al., "Weight Standardization", arXiv:1903.10520; the form of DetectoRS, arXiv:2006.02334, appendix, which keeps
pretrained weights in use: they are standardised and scaled back.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class ConvAWS(nn.Conv2d):
    """`nn.Conv2d` that convolves with gamma * (weight - mean) / sqrt(variance + 1e-5) + beta.

    Mean and variance (unbiased) are of each output channel's own weights. The buffers ``weight_gamma`` and
    ``weight_beta`` (C_out, 1, 1, 1) hold deviation and mean of the weights before training, so that what was learnt
    without standardisation still holds: where loaded weights bring no gamma, or one whose mean is not positive, both
    are taken of the loaded weights. A fresh layer has those of its initial weights.
    """

    weight_gamma: Tensor
    weight_beta: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: str | int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)  # type: ignore[arg-type]
        gamma, beta = _moments(self.weight.detach())
        self.register_buffer("weight_gamma", gamma)
        self.register_buffer("weight_beta", beta)

    def standardized_weight(self) -> Tensor:
        """What is convolved with, (C_out, C / groups, k, k)."""
        deviation, mean = _moments(self.weight)
        return self.weight_gamma * (self.weight - mean) / deviation + self.weight_beta

    def keep_weight(self) -> None:
        """Take gamma and beta of the weights as they are: convolve with these from here."""
        deviation, mean = _moments(self.weight.detach())
        self.weight_gamma.copy_(deviation)
        self.weight_beta.copy_(mean)

    def take_over(self, conv: nn.Conv2d) -> None:
        """Convolve with the weight and bias of ``conv``, learning them if it did."""
        with torch.no_grad():
            self.weight.copy_(conv.weight)
            if conv.bias is not None and self.bias is not None:
                self.bias.copy_(conv.bias)
        self.keep_weight()
        self.requires_grad_(conv.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        weight = self.standardized_weight()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: dict, strict: bool, missing_keys: list[str],
        unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        names = (f"{prefix}weight_gamma", f"{prefix}weight_beta")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if all(name in state_dict for name in names) and bool(self.weight_gamma.mean() > 0):
            return
        for name in names:
            if name in missing_keys:
                missing_keys.remove(name)
        self.keep_weight()


def standardize_weights(module: nn.Module) -> None:
    """Replace every plain `nn.Conv2d` inside ``module`` by a `ConvAWS` of the same weights, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Conv2d:
                setattr(parent, name, as_conv_aws(child))


def as_conv_aws(conv: nn.Conv2d) -> ConvAWS:
    """A `ConvAWS` of the same form and weights; its output is the same but for the 1e-5 in the deviation."""
    twin = ConvAWS(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    twin.to(device=conv.weight.device, dtype=conv.weight.dtype)
    twin.take_over(conv)
    return twin


def _moments(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation sqrt(unbiased variance + 1e-5) and mean of each output channel's weights, (C_out, 1, 1, 1)."""
    flat = weight.flatten(1)
    deviation = (flat.var(dim=1, correction=min(1, flat.shape[1] - 1)) + EPS).sqrt()
    return deviation[:, None, None, None], flat.mean(dim=1)[:, None, None, None]
