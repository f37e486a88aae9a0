"""Any timm model with a feature pyramid as a backbone: ``timm/NAME``."""

import os
from typing import Any

import timm
import torch
from torch import Tensor

from pyrafuse.core.errors import PyrafuseError, unknown_name
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec
from pyrafuse.core.storage import read_tensors


class TimmPyramid(Backbone):
    """A timm model's maps at the wanted strides, channels first whatever the family's own layout.

    Args:
        name: timm's name, ``resnet50`` or ``swin_tiny_patch4_window7_224``.
        strides: Which maps to take, finest first.
        weights: File with the model's published weights, in timm's keys.
        pretrained: Let timm fetch its default weights.

    Raises:
        UnknownNameError: If timm has no such model.
        PyrafuseError: If it has no map at one of ``strides`` (a plain ViT has one stride only).
    """

    def __init__(
        self,
        name: str,
        *,
        strides: tuple[int, ...] = (8, 16, 32),
        weights: str | os.PathLike[str] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise unknown_name("timm model", name, timm.list_models())
        with torch.device("meta"):
            offered = tuple(_create(name).feature_info.reduction())
        if not set(strides) <= set(offered):
            raise PyrafuseError(
                f"timm/{name} offers maps at strides {offered}, and {strides} are needed; choose a hierarchical model"
            )
        options: dict[str, Any] = {"pretrained": pretrained}
        if weights is not None:
            read_tensors(weights)  # refuses, in our own words, what would execute code
            options = {"pretrained": True, "pretrained_cfg_overlay": {"file": os.fspath(weights)}}
        self.trunk = _create(name, out_indices=tuple(offered.index(s) for s in strides), **options)
        self.features = PyramidSpec(channels=tuple(self.trunk.feature_info.channels()), strides=strides)
        self._is_channels_last = "NHWC" in str(getattr(self.trunk, "output_fmt", ""))

    def forward(self, images: Tensor) -> Pyramid:
        maps = self.trunk(images)
        return tuple(m.permute(0, 3, 1, 2).contiguous() for m in maps) if self._is_channels_last else tuple(maps)


def _create(name: str, **options: Any) -> Any:
    try:  # windowed families refuse every size but the one they were trained at, unless told otherwise
        return timm.create_model(name, features_only=True, strict_img_size=False, **options)
    except TypeError:
        return timm.create_model(name, features_only=True, **options)
