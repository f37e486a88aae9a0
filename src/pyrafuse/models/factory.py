"""Detectors and backbones by name: where strings end and objects begin."""

import os
from dataclasses import replace
from typing import Any

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.base.spec import DetectorSpec
from pyrafuse.heads.registry import HEADS
from pyrafuse.models.building import build
from pyrafuse.models.describing import describe
from pyrafuse.models.detector import Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.necks.registry import NECKS

__all__ = ["create_backbone", "create_model", "list_models", "list_parts"]


def create_model(
    model: str | DetectorSpec | None = None,
    *,
    num_classes: int = 80,
    backbone_weights: str | os.PathLike[str] | None = None,
    **changes: Any,
) -> Detector:
    """Describe a detector and build it, with fresh weights.

    Args:
        model: One of `list_models`, a description, or the YAML file of one; without it ``head`` names what to build.
        num_classes: Number of classes, K.
        backbone_weights: Published checkpoint of the backbone.
        changes: What is otherwise than in ``model``: ``backbone``, ``neck``, ``head``, ``criterion``, ``postprocess``
            and so on, each another part by its name, a mapping with its name and options, or options of the part that
            is there; see `describe`.

    Raises:
        UnknownNameError: If there is no such model or part.
        PyrafuseError: If a part takes no such option, or the parts do not fit together: the message says which levels
            a neck or head was offered, and which it can take.
    """
    spec = describe(model, num_classes=num_classes, **changes)
    detector = build(spec, backbone_weights=backbone_weights)
    name = model if isinstance(model, str) else ""
    detector.card = replace(detector.card, model=name)
    return detector


def list_models() -> tuple[str, ...]:
    """Names of all detectors."""
    return MODELS.names()


def list_parts() -> dict[str, tuple[str, ...]]:
    """Names of all parts by kind; any timm model with a pyramid is a backbone besides."""
    return {"backbone": BACKBONES.names(), "neck": NECKS.names(), "head": HEADS.names(), "model": MODELS.names()}
