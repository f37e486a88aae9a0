"""All backbones by name, any of timm's among them, and their pretrained weights."""

import os
from typing import Any

from pyrafuse.backbones.timm_pyramid import TimmPyramid
from pyrafuse.core.pyramid import Backbone
from pyrafuse.core.registry import Registry

BACKBONES: Registry[Backbone] = Registry("backbone", "pyrafuse.backbones")


def create_backbone(name: str, *, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """Build a backbone: one of `BACKBONES`, or ``timm/NAME`` for any timm model with a feature pyramid.

    Args:
        name: Registered name, or ``timm/NAME``.
        weights: Checkpoint of the backbone alone, as published (classifier keys are left aside).
        options: Keyword arguments of the backbone's constructor.

    Raises:
        UnknownNameError: If there is no such backbone.
        CheckpointError: If ``weights`` cannot be read or does not fit; missing and extra keys are named.
    """
    if name.startswith("timm/"):
        return TimmPyramid(name.removeprefix("timm/"), weights=weights, **options)
    return BACKBONES.create(name, weights=weights, **options)
