"""EfficientDet's head: two towers of separable convolutions that all levels share, and batch norms of each level.

Tan, Pang and Le, "EfficientDet", arXiv:1911.09070, section 4.2; what the text leaves open is as in its PyTorch code.
map -> (separable 3x3 -> batch norm of the level -> SiLU) ... -> separable 3x3 -> classes, or deltas, of each anchor
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrafuse.base.errors import check_count
from pyrafuse.core.class_rows import ClassRows
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Pyramid, PyramidSpec
from pyrafuse.heads.dense import grid_of, rows_of, shared_channels, steps_of
from pyrafuse.heads.registry import HEADS
from pyrafuse.layers.conv import create_activation
from pyrafuse.ops.anchors import octave_scales


class SeparableConv(nn.Sequential):
    """3x3 convolution of each channel alone, then a 1x1 convolution, which may have a bias."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        _initialize(self.depthwise)
        _initialize(self.pointwise)


def _initialize(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="linear")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


class Branch(nn.Module):
    """A pyramid -> one map (B, ``out_channels``, H, W) of each level.

    Args:
        channels: Channels of every map that comes in.
        out_channels: Channels of every map that goes out.
        num_convs: Convolutions before the last.
        num_levels: Number of levels of the pyramid.
        redundant_bias: The convolutions in front of batch norms have biases.
        eps: Epsilon of the batch norms.
        momentum: Momentum of the batch norms.
        activation: Behind them, a key of `layers.conv.ACTIVATIONS`.
        separable: Make the convolutions separable ones; else plain.

    Raises:
        ValueError: If ``num_convs`` is no whole number of 0 or more.
        UnknownNameError: If there is no such activation.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        num_convs: int,
        num_levels: int,
        redundant_bias: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.01,
        activation: str = "silu",
        separable: bool = True,
    ) -> None:
        super().__init__()
        check_count("num_convs", num_convs)

        def conv(out_channels: int, *, bias: bool) -> nn.Module:
            if separable:
                return SeparableConv(channels, out_channels, bias=bias)
            return _initialize(nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias))

        self.convs = nn.ModuleList(conv(channels, bias=redundant_bias) for _ in range(num_convs))
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(channels, eps=eps, momentum=momentum) for _ in range(num_levels))
            for _ in range(num_convs)
        )
        self.activation = create_activation(activation)
        self.predict = conv(out_channels, bias=True)

    @property
    def bias(self) -> Tensor:
        """Of the last convolution."""
        last = self.predict.pointwise if isinstance(self.predict, SeparableConv) else self.predict
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        return last.bias

    def forward(self, pyramid: Pyramid) -> list[Tensor]:
        return [self._predict(x, level) for level, x in enumerate(pyramid)]

    def _predict(self, x: Tensor, level: int) -> Tensor:
        for conv, norms in zip(self.convs, self.norms, strict=True):
            assert isinstance(norms, nn.ModuleList)
            x = self.activation(norms[level](conv(x)))
        return self.predict(x)


@HEADS.register("efficientdet", predictions="anchors", shares_levels=True)
class EfficientDetHead(nn.Module):
    """Pyramid -> `DensePredictions`.

    Anchors stand as far apart as the cells of a map are: where the input's side is no multiple of the coarsest stride,
    that is less than the stride, and the anchors are smaller by as much.

    Args:
        features: The pyramid that comes in, all levels with the same channels.
        num_classes: Number of classes, K.
        num_convs: Convolutions of each tower, besides the last.
        scale: Side of the smallest anchor in strides.
        scales_per_octave: Anchors of each shape, up to twice the smallest.
        shapes: Width and height of each shape, in sides of a square of the scale.
        prior: Score that training starts from.
        redundant_bias: The convolutions in front of batch norms have biases, as trained with TensorFlow.
        eps: Epsilon of the batch norms.
        momentum: Momentum of the batch norms.
        activation: Behind them, a key of `layers.conv.ACTIVATIONS`.
        separable: Make the convolutions separable ones; else plain.

    Raises:
        UnknownNameError: If there is no such activation.
        ValueError: If the levels differ in channels, or ``num_convs`` is no whole number of 0 or more.
    """

    def __init__(
        self,
        features: PyramidSpec,
        *,
        num_classes: int,
        num_convs: int = 3,
        scale: float = 4.0,
        scales_per_octave: int = 3,
        shapes: Sequence[tuple[float, float]] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)),
        prior: float = 0.01,
        redundant_bias: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.01,
        activation: str = "silu",
        separable: bool = True,
    ) -> None:
        super().__init__()
        channels = shared_channels(features)
        self.strides = features.strides
        self.num_classes = num_classes
        scales = torch.tensor(octave_scales(scale, scales_per_octave))
        self.shapes: Tensor
        # in strides
        self.register_buffer("shapes", (scales[:, None, None] * torch.tensor(shapes)).view(-1, 2), persistent=False)
        self.num_slots = len(self.shapes)

        def branch(out_channels: int) -> Branch:
            return Branch(
                channels,
                out_channels,
                num_convs=num_convs,
                num_levels=len(features),
                redundant_bias=redundant_bias,
                eps=eps,
                momentum=momentum,
                activation=activation,
                separable=separable,
            )

        self.classes = branch(self.num_slots * num_classes)
        self.class_rows = {"classes.predict.pointwise" if separable else "classes.predict": ClassRows()}
        self.boxes = branch(self.num_slots * 4)
        nn.init.constant_(self.classes.bias, -math.log((1 - prior) / prior))

    def forward(self, pyramid: Pyramid) -> DensePredictions:
        steps = steps_of(pyramid, self.strides)
        # non-blocking: a plain copy would make the host wait for the device
        cells = torch.tensor([[(across, down)] for down, across in steps], dtype=self.shapes.dtype)
        shapes = self.shapes * cells.to(self.shapes.device, non_blocking=True)
        return DensePredictions(
            classes=rows_of(self.classes(pyramid), self.num_slots),
            deltas=rows_of(self.boxes(pyramid), self.num_slots),
            quality=None,
            grid=grid_of(pyramid, self.strides, shapes, offset=0.5, steps=steps),
        )
