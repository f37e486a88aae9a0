"""Any timm model with a feature pyramid as a backbone: ``timm/NAME``."""

import os
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from pyrafuse.backbones.weights import read_state_dict
from pyrafuse.core.errors import CheckpointError, PyrafuseError, unknown_name
from pyrafuse.core.pyramid import Backbone, Pyramid, PyramidSpec


class TimmPyramid(Backbone):
    """A timm model's maps at the wanted strides, channels first whatever the family's own layout.

    Args:
        name: timm's name, ``resnet50`` or ``swin_tiny_patch4_window7_224``.
        strides: Which maps to take, finest first.
        weights: File with the model's published weights, in timm's keys; ``timm/NAME``, its own name, is fetched.
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
        self.features = PyramidSpec(channels=tuple(self.trunk.feature_info.channels()), strides=tuple(strides))
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
        weights: File with published weights, in timm's keys; ``timm/NAME``, the model's own name, is fetched.
        pretrained: Let timm fetch its default weights.
        options: Keyword arguments of `timm.create_model`.

    Raises:
        UnknownNameError: If timm has no such model.
        CheckpointError: If ``weights`` cannot be read safely or do not fit; what does not is named.
    """
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    if weights is not None and os.fspath(weights) == f"timm/{name}" and not os.path.exists(weights):
        weights, pretrained = None, True
    if weights is None:
        return _create(name, pretrained=pretrained, **options)
    state = read_state_dict(weights)  # refuses, in our own words, what would execute code
    from_file: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"file": os.fspath(weights)}}
    try:
        if options.get("features_only"):
            # timm fills a part of a model with whatever it finds; only a whole model, head as in the file, is strict
            head = _count_classes(name, state)
            overlay = {**from_file["pretrained_cfg_overlay"], "num_classes": head}
            _create(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=head)
        return _create(name, **from_file, **options)
    except RuntimeError as error:
        findings = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise CheckpointError(f"{weights} does not fit timm/{name}; {findings[:600] or error}") from error


def _create(name: str, **options: Any) -> Any:
    try:  # windowed families refuse every size but the one they were trained at, unless told otherwise
        return timm.create_model(name, strict_img_size=False, **options)
    except TypeError:
        return timm.create_model(name, **options)


def _count_classes(name: str, state: Mapping[str, Tensor]) -> int:
    """How many classes the file's head tells; 0 if it has none."""
    published = timm.get_pretrained_cfg(name)
    head = published.classifier if published is not None else None
    first = head[0] if isinstance(head, tuple | list) else head
    weight = state.get(f"{first}.weight")
    return 0 if weight is None else len(weight)
