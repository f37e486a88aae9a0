"""Any timm model with a feature pyramid as a backbone: ``timm/NAME``."""

import os
from typing import Any

import timm
import torch
from torch import Tensor

from pyrafuse.core.errors import CheckpointError, PyrafuseError, unknown_name
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
        with torch.device("meta"):
            offered = tuple(create_timm_model(name, features_only=True).feature_info.reduction())
        if not set(strides) <= set(offered):
            raise PyrafuseError(
                f"timm/{name} offers maps at strides {offered}, and {strides} are needed; choose a hierarchical model"
            )
        self.trunk = create_timm_model(
            name,
            weights=weights,
            pretrained=pretrained,
            features_only=True,
            out_indices=tuple(offered.index(s) for s in strides),
        )
        self.features = PyramidSpec(channels=tuple(self.trunk.feature_info.channels()), strides=strides)
        self._is_channels_last = "NHWC" in str(getattr(self.trunk, "output_fmt", ""))

    def forward(self, images: Tensor) -> Pyramid:
        maps = self.trunk(images)
        return tuple(m.permute(0, 3, 1, 2).contiguous() for m in maps) if self._is_channels_last else tuple(maps)


def create_timm_model(
    name: str, *, weights: str | os.PathLike[str] | None = None, pretrained: bool = False, **options: Any
) -> Any:
    """Build a timm model.

    Args:
        name: timm's name.
        weights: File with published weights, in timm's keys.
        pretrained: Let timm fetch its default weights.
        options: Keyword arguments of `timm.create_model`.

    Raises:
        UnknownNameError: If timm has no such model.
        CheckpointError: If ``weights`` cannot be read safely or do not fit; what does not is named.
    """
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    if weights is not None:
        read_tensors(weights)  # refuses, in our own words, what would execute code
        pretrained, options = True, {**options, "pretrained_cfg_overlay": {"file": os.fspath(weights)}}
    try:  # windowed families refuse every size but the one they were trained at, unless told otherwise
        return timm.create_model(name, pretrained=pretrained, strict_img_size=False, **options)
    except TypeError:
        return _create(name, weights, pretrained=pretrained, **options)
    except RuntimeError as error:
        raise _misfit(name, weights, error) from error


def _create(name: str, weights: str | os.PathLike[str] | None, **options: Any) -> Any:
    try:
        return timm.create_model(name, **options)
    except RuntimeError as error:
        raise _misfit(name, weights, error) from error


def _misfit(name: str, weights: str | os.PathLike[str] | None, error: RuntimeError) -> Exception:
    if weights is None:
        return error
    findings = "; ".join(line.strip() for line in str(error).splitlines()[1:])
    return CheckpointError(f"{weights} does not fit timm/{name}; {findings[:600] or error}")
