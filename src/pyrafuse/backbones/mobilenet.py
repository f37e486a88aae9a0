"""MobileNetV2 as a pyramid, on torchvision's layers and with its checkpoints.

Sandler et al., arXiv:1801.04381. images -> inverted residuals -> maps at strides 8, 16, 32
"""

import os

from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.backbones.weights import load_exactly, read_state_dict
from pyrafuse.core.errors import PyrafuseError
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec


@BACKBONES.register("mobilenet_v2")
class MobileNetV2(Backbone):
    """MobileNetV2; the coarsest map is taken after the last inverted residual, or after the classifier's 1x1.

    Args:
        width: torchvision's ``width_mult``.
        classifier_conv: Go on through the 1x1 convolution to 1280 channels, as the light ASFF of arXiv:1911.09516 does.
        weights: torchvision ``mobilenet_v2`` checkpoint.
        frozen: Leading layers, 0 to 6, that keep their weights and statistics. Four of them are the maps at strides 2
            and 4: a few edge filters, and two thirds of the backbone's time in training.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        classifier_conv: bool = False,
        weights: str | os.PathLike[str] | None = None,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= frozen <= 6:
            raise PyrafuseError(f"mobilenet_v2 can freeze its first 0 to 6 layers, got frozen={frozen}")
        layers: nn.Sequential = mobilenet_v2(weights=None, width_mult=width).features
        if not classifier_conv:
            layers = layers[:-1]
        self.layers = layers
        self._taps = (6, 13, len(layers) - 1)
        channels = tuple(_out_channels(layers[tap]) for tap in self._taps)
        self.features = PyramidSpec(channels=channels, strides=(8, 16, 32))
        if weights is not None:
            state = read_state_dict(weights)
            unused = ("classifier.",) if classifier_conv else ("classifier.", "features.18.")
            ours = {
                key.replace("features.", "layers.", 1): value
                for key, value in state.items()
                if not key.startswith(unused)
            }
            load_exactly(self, ours, source=weights)
        self._frozen = frozen
        layers[:frozen].requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "MobileNetV2":
        """Set the mode of all layers but the frozen ones, whose statistics stay."""
        super().train(mode)
        self.layers[: self._frozen].eval()
        return self

    def forward(self, images: Tensor) -> Pyramid:
        x = images
        maps = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self._taps:
                maps.append(x)
        return tuple(maps)


def _out_channels(layer: nn.Module) -> int:
    return [part.out_channels for part in layer.modules() if isinstance(part, nn.Conv2d)][-1]
