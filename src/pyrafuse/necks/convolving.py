"""What stands behind a fusion: a convolution, or a block of several, as a merge of a graph describes it.

x -> activation, convolution, norm, activation; or one of `BLOCKS` in their place
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from torch import Tensor, nn

from pyrafuse.base.errors import PyrafuseError, check_between, unknown_name
from pyrafuse.layers.alignment import FeatureSelection
from pyrafuse.layers.attention import EncoderLayer
from pyrafuse.layers.conv import ACTIVATIONS, create_activation
from pyrafuse.layers.rep_conv import RepConv, RepCSP, RepELAN
from pyrafuse.necks.field_types import check_fields


@dataclass(frozen=True)
class Conv:
    """A convolution at stride 1 that keeps the size, and what stands around it; or another block in its place.

    Attributes:
        kernel_size: Odd kernel size.
        separable: A depthwise convolution of this size without bias, then a 1x1 convolution.
        before: Activation in front of the convolution, a key of `ACTIVATIONS`.
        norm: A key of `NORMS`.
        activation: Activation behind the norm, a key of `ACTIVATIONS`.
        bias: Whether the (1x1) convolution has one; by default where no norm follows.
        eps: Number that the norm adds to the variance.
        momentum: Share of each batch in the statistics of batch norm.
        block: A key of `BLOCKS`.
        depth: Number of units of the block.

    Raises:
        ValueError: If a value is of a wrong type, the kernel is even or not positive, ``eps`` or ``momentum`` is out of
            range, the depth is not positive, or the block does not read a field that is given.
        UnknownNameError: If there is no such block, norm or activation.
    """

    kernel_size: int = 3
    separable: bool = False
    before: str = "none"
    norm: str = "none"
    activation: str = "none"
    bias: bool | None = None
    eps: float = 1e-5
    momentum: float = 0.1
    block: str = "conv"
    depth: int = 1

    def __post_init__(self) -> None:
        check_fields(self, "a convolution")
        check_between("eps", self.eps, 0)
        check_between("momentum", self.momentum, 0, 1)
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"a convolution that keeps the size has an odd kernel, got {self.kernel_size}")
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        for name in (self.before, self.activation):
            if name not in ACTIVATIONS:
                raise unknown_name("activation", name, ACTIVATIONS)
        if self.block not in BLOCKS:
            raise unknown_name("block", self.block, BLOCKS)
        if self.depth < 1:
            raise PyrafuseError(f"a block has a depth of 1 or more, got {self.depth}")
        reads = BLOCKS[self.block].reads
        for field in fields(self):
            if field.name not in (*reads, "block") and getattr(self, field.name) != field.default:
                raise PyrafuseError(
                    f"the block {self.block} has no {field.name}: leave it out; it has {', '.join(reads)}"
                )


NORMS: dict[str, Callable[[int, Conv], nn.Module]] = {
    "none": lambda _channels, _form: nn.Identity(),
    "batch_norm": lambda channels, form: nn.BatchNorm2d(channels, eps=form.eps, momentum=form.momentum),
    "group_norm": lambda channels, form: nn.GroupNorm(32, channels, eps=form.eps),
}


class Convolution(nn.Sequential):
    """The module that a `Conv` describes, from ``in_channels`` to ``out_channels``, at ``stride``."""

    def __init__(self, in_channels: int, out_channels: int, form: Conv, *, stride: int = 1) -> None:
        size, has_norm = form.kernel_size, form.norm != "none"
        bias = (not has_norm) if form.bias is None else form.bias
        before = create_activation(form.before)
        if hasattr(before, "inplace"):
            setattr(before, "inplace", False)  # noqa: B010  # what comes in may be somebody else's input too
        parts: list[tuple[str, nn.Module]] = [("before", before)]
        groups = in_channels if form.separable else 1
        middle, its_bias = (in_channels, False) if form.separable else (out_channels, bias)
        spatial = nn.Conv2d(in_channels, middle, size, stride=stride, padding=size // 2, groups=groups, bias=its_bias)
        if form.separable:
            parts += [("depthwise", spatial), ("conv", nn.Conv2d(in_channels, out_channels, 1, bias=bias))]
        else:
            parts.append(("conv", spatial))
        parts += [("norm", NORMS[form.norm](out_channels, form)), ("activation", create_activation(form.activation))]
        super().__init__(OrderedDict((name, part) for name, part in parts if not isinstance(part, nn.Identity)))


@dataclass(frozen=True)
class Block:
    """What a merge may have behind its fusion.

    Attributes:
        create: (channels before, channels after, form) -> a module that keeps the size; a sequence.
        reads: Fields of `Conv` that mean something to it.
    """

    create: Callable[[int, int, Conv], nn.Sequential]
    reads: tuple[str, ...]


CONV_FIELDS = ("kernel_size", "separable", "before", "norm", "activation", "bias", "eps", "momentum")


def _select(before: int, after: int, form: Conv) -> nn.Sequential:
    parts = Convolution(before, after, form)
    return nn.Sequential(OrderedDict([("select", FeatureSelection(before)), *parts.named_children()]))


class Residual(nn.Module):
    """x (B, C, H, W) + two convolutions of it, then the activation; the unit of He et al., arXiv:1512.03385."""

    def __init__(self, channels: int, form: Conv) -> None:
        super().__init__()
        self.first = Convolution(channels, channels, form)
        self.second = Convolution(channels, channels, replace(form, activation="none"))
        self.activation = create_activation(form.activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.second(self.first(x)))


def _residual(before: int, after: int, form: Conv) -> nn.Sequential:
    project = () if before == after else (Convolution(before, after, replace(form, kernel_size=1, separable=False)),)
    return nn.Sequential(*project, *(Residual(after, form) for _ in range(form.depth)))


def _attention(before: int, after: int, form: Conv) -> nn.Sequential:
    project = () if before == after else (nn.Conv2d(before, after, 1),)
    return nn.Sequential(*project, *(EncoderLayer(after) for _ in range(form.depth)))


def _rep(before: int, after: int, form: Conv) -> nn.Sequential:
    widths = (before, *(after for _ in range(form.depth)))
    return nn.Sequential(*(RepConv(i, o, activation=form.activation) for i, o in pairwise(widths)))


def _rep_elan(before: int, after: int, form: Conv) -> nn.Sequential:
    return nn.Sequential(RepELAN(before, after, depth=form.depth, activation=form.activation))


def _rep_csp(before: int, after: int, form: Conv) -> nn.Sequential:
    return nn.Sequential(RepCSP(before, after, depth=form.depth, activation=form.activation))


BLOCKS: dict[str, Block] = {
    "conv": Block(Convolution, CONV_FIELDS),
    "selection": Block(_select, CONV_FIELDS),
    "residual": Block(_residual, (*CONV_FIELDS, "depth")),
    "rep": Block(_rep, ("activation", "depth")),
    "rep_elan": Block(_rep_elan, ("activation", "depth")),
    "rep_csp": Block(_rep_csp, ("activation", "depth")),
    "attention": Block(_attention, ("depth",)),
}
"""What may stand behind a fusion.

``conv`` is a convolution; ``selection`` weighs the channels before it (FaPN). Of units in a row, as many as ``depth``
says, are ``residual`` (two convolutions each), ``rep`` (`RepConv`) and ``attention`` (`EncoderLayer`). ``rep_elan``
(RepGFPN) and ``rep_csp`` (RT-DETR) hold ``depth`` units, and always have batch norm, as ``rep`` does.
"""


def create_block(in_channels: int, out_channels: int, form: Conv) -> nn.Sequential:
    """The module that ``form`` describes, from ``in_channels`` to ``out_channels``."""
    return BLOCKS[form.block].create(in_channels, out_channels, form)
