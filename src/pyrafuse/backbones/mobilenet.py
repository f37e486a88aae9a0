"""MobileNetV2 as a pyramid, on torchvision's layers, with its checkpoints and mmdetection's; with ECA on wish.

Sandler et al., arXiv:1801.04381; Wang et al., "ECA-Net", arXiv:1910.03151.
images -> inverted residuals -> maps
"""

import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.staged import check_frozen_stages, check_strides, stop_norms
from pyrafuse.backbones.weights import load_exactly, read_published
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec
from pyrafuse.layers.conv import create_activation
from pyrafuse.layers.eca import ECA
from pyrafuse.layers.folding import run_folded

TAPS = {2: 1, 4: 3, 8: 6, 16: 13, 32: 17}
"""Stride -> the last layer that has it."""

MODULES = (
    "conv1",
    *(f"layer{stage}.{block}" for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1), 1) for block in range(count)),
    "conv2",
)
"""mmdetection's name of each layer; it counts the inverted residuals of equal channels together."""

PARTS = ("expand_conv", "depthwise_conv", "linear_conv.conv", "linear_conv.bn", "eca")
"""And of what an inverted residual is made of."""


@BACKBONES.register("mobilenet_v2", paper="1801.04381")
class MobileNetV2(Backbone):
    """MobileNetV2; the coarsest map is taken after the last inverted residual, or after the classifier's 1x1.

    Args:
        width: Width multiplier, torchvision's ``width_mult``.
        classifier_conv: Go on through the 1x1 convolution to 1280 channels, as the light ASFF of arXiv:1911.09516 does.
        eca: Weigh the channels that each inverted residual ends with, by kernels of 1 below 96 channels and of 3 from
            there on, as the authors of ECA-Net do.
        strides: Which maps to give, of 2, 4, 8, 16 and 32; layers behind the last are left out.
        weights: Checkpoint of torchvision's ``mobilenet_v2``, of ECA-Net's, or of mmdetection, alone or in a detector;
            a file or ``torchvision/mobilenet_v2``.
        frozen_stages: -1 freezes nothing, 0 the layers up to stride 2, n the n stages behind these too, each up to the
            end of its stride.
        norm_eval: Batch norms normalise by their stored statistics in training too.
        activation: A key of `layers.conv.ACTIVATIONS`; mmdetection's YOLOv3 was trained with ``leaky_relu``.

    Raises:
        PyrafuseError: If there is no map at one of ``strides``, they do not grow, there is no such stage, or
            there is no such ``activation``.
        CheckpointError: If ``weights`` do not fit.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        classifier_conv: bool = False,
        eca: bool = False,
        strides: Sequence[int] = (8, 16, 32),
        weights: str | os.PathLike[str] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        activation: str = "relu6",
    ) -> None:
        super().__init__()
        check_frozen_stages(frozen_stages, len(TAPS) - 1)
        check_strides(strides, tuple(TAPS))
        layers: nn.Sequential = mobilenet_v2(weights=None, width_mult=width).features
        for part in layers.modules():
            if isinstance(part, Conv2dNormActivation):
                part[-1] = create_activation(activation)
        if eca:
            residuals: Any = layers[1:-1]
            for residual in residuals:
                channels = _out_channels(residual)
                residual.conv.append(ECA(channels, kernel_size=1 if channels < 96 else 3))
        taps = {**TAPS, 32: 18} if classifier_conv else TAPS
        self._taps = tuple(taps[stride] for stride in strides)
        self.layers = layers = layers[: self._taps[-1] + 1]
        channels = tuple(_out_channels(layers[tap]) for tap in self._taps)
        self.features = PyramidSpec(channels=channels, strides=tuple(strides))
        if weights is not None:
            state = read_published(weights)
            is_mmdetection = "conv1.conv.weight" in state
            naming, rest = (name_of_mmdetection, "fc.") if is_mmdetection else (name_mobilenet_v2, "classifier.")
            left_out = [naming(f"layers.{layer}.") for layer in range(len(layers), len(MODULES))]
            unused = [re.escape(prefix) for prefix in (rest, *left_out)]
            load_exactly(self, state, source=weights, naming=naming, unused=unused)
        self._num_frozen = 0 if frozen_stages < 0 else [tap + 1 for tap in TAPS.values()][frozen_stages]
        self._norm_eval = norm_eval
        layers[: self._num_frozen].requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "MobileNetV2":
        """Set the mode of all layers but the frozen ones and, with ``norm_eval``, the norms: their statistics stay."""
        super().train(mode)
        self.layers[: self._num_frozen].eval()
        if self._norm_eval:
            stop_norms(self)
        return self

    def forward(self, images: Tensor) -> Pyramid:
        x = images
        maps = []
        for i, layer in enumerate(self.layers):
            x = _run(layer, x)
            if i in self._taps:
                maps.append(x)
        return tuple(maps)


def _run(layer: Any, x: Tensor) -> Tensor:
    if not isinstance(layer, InvertedResidual):
        return run_folded(layer, x)
    return x + run_folded(layer.conv, x) if layer.use_res_connect else run_folded(layer.conv, x)


def name_mobilenet_v2(key: str) -> str:
    """The published key (torchvision's) of a MobileNetV2's key."""
    return key.replace("layers.", "features.", 1)


def name_of_mmdetection(key: str) -> str:
    """The key of mmdetection for one of ours: ``layer2.0.expand_conv.bn.bias`` for ``layers.2.conv.0.1.bias``."""
    number, _, rest = key.removeprefix("layers.").partition(".")
    shift = 1 if number == "1" else 0  # the first has no 1x1 convolution before its 3x3: its parts count from there
    rest = re.sub(r"^conv\.(\d)(?=\.)", lambda found: PARTS[int(found[1]) + shift], rest)
    rest = re.sub(r"(^|\.)([01])(?=\.)", lambda found: f"{found[1]}{('conv', 'bn')[int(found[2])]}", rest)
    return f"{MODULES[int(number)]}.{rest}"


def _out_channels(layer: nn.Module) -> int:
    return [part.out_channels for part in layer.modules() if isinstance(part, nn.Conv2d)][-1]


BACKBONES.add("eca_mobilenet_v2", partial(MobileNetV2, eca=True), paper="1910.03151")
