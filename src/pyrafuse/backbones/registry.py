"""All backbones by name, any of timm's among them, and their pretrained weights."""

import os
from functools import partial
from typing import Any

from pyrafuse.backbones.timm_pyramid import TimmPyramid
from pyrafuse.base.parts import Part
from pyrafuse.base.registry import Entry, Registry
from pyrafuse.core.pyramid import Backbone


class BackboneRegistry(Registry[Backbone]):
    """Backbones by name; ``timm/NAME`` is any timm model with a feature pyramid."""

    def entry(self, name: str) -> Entry[Backbone]:
        """What is registered under ``name``, or a `TimmPyramid` of that name."""
        if name.startswith("timm/"):
            return Entry(partial(TimmPyramid, name.removeprefix("timm/")))
        return super().entry(name)


BACKBONES = BackboneRegistry("backbone", "pyrafuse.backbones")


def create_backbone(
    name: str, *, weights: str | os.PathLike[str] | None = None, pretrained: bool = False, **options: Any
) -> Backbone:
    """Build a backbone: one of `BACKBONES`, or ``timm/NAME`` for any timm model with a feature pyramid.

    Args:
        name: Registered name, or ``timm/NAME``.
        weights: Checkpoint of the backbone alone, as published (classifier keys are left aside).
        pretrained: Whether timm fetches the weights of one of its models.
        options: Keyword arguments of the backbone's constructor.

    Raises:
        UnknownNameError: If there is no such backbone.
        PyrafuseError: If it takes no such option, or the options do not go together.
        CheckpointError: If ``weights`` cannot be read or does not fit; missing and extra keys are named.
    """
    return BACKBONES.build(Part(name, options), weights=weights, pretrained=pretrained)
