"""Convolution, batch normalisation and activation as one block, and its usual initialisation."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.base.errors import unknown_name
from pyrafuse.core.tracing import is_size

ACTIVATIONS = {
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "leaky_relu_0.01": lambda: nn.LeakyReLU(0.01, inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
    "none": nn.Identity,
}


def create_activation(name: str) -> nn.Module:
    """A new module of the activation ``name``.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


class ConvNormAct(nn.Module):
    """Convolution, then batch norm, then ``activation``.

    It is padded to keep the size at stride 1 unless ``padding`` is given, and has a bias where there is no norm.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size - 1) // 2 if padding is None else padding,
            dilation=dilation,
            groups=groups,
            bias=not norm,
        )
        self.norm = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.activation = create_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class ZeroConv2d(nn.Conv2d):
    """A convolution that starts with weights at or near zero, and that `initialize` and `initialize_small` leave so.

    What it adds, offsets or feedback say, is nothing at first, whoever else fills the module that holds it.

    Args:
        in_channels: Input channels, as of `nn.Conv2d`.
        out_channels: Output channels.
        kernel_size: Kernel size.
        stride: Stride.
        padding: Padding.
        dilation: Dilation.
        start: What the biases start at, and so all of the output.
        spread: Standard deviation that the weights start with.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        start: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation)
        assert self.bias is not None
        nn.init.constant_(self.bias, start)
        if spread:
            nn.init.normal_(self.weight, std=spread)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


def initialize(module: nn.Module, *, slope: float = 0.1) -> None:
    """Kaiming-normal convolutions (fan in, leaky slope ``slope``), zero biases, identity norms."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and not isinstance(part, ZeroConv2d):
            nn.init.kaiming_normal_(part.weight, a=slope, mode="fan_in", nonlinearity="leaky_relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def initialize_small(module: nn.Module) -> None:
    """Weights near zero and zero biases: a predictor that starts from its biases."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and not isinstance(part, ZeroConv2d):
            nn.init.normal_(part.weight, std=0.01)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def cut_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The upper left ``size`` cells of x (B, C, H, W); where there are fewer, nearest neighbours make more."""
    return upsample_to(x[..., : size[0], : size[1]], size)


def upsample_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest-neighbour resize of x (B, C, H, W) to ``size`` cells; odd sizes included."""
    return x if is_size(x, size) else F.interpolate(x, size=list(size), mode="nearest")
