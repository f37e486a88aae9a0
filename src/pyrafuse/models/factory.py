"""Detectors and backbones by name: where strings end and objects begin."""

from typing import Any

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.core.errors import PyrafuseError
from pyrafuse.heads.registry import HEADS
from pyrafuse.models import recursive_fpn  # noqa: F401  # a backbone that is made of other parts, by its name
from pyrafuse.models.detector import Card, Detector
from pyrafuse.models.registry import MODELS
from pyrafuse.necks.graph_text import embed_graphs
from pyrafuse.necks.registry import NECKS

__all__ = ["create_backbone", "create_model", "list_models", "list_parts"]


def create_model(name: str, *, num_classes: int = 80, **options: Any) -> Detector:
    """Build the detector registered under ``name``, with fresh weights.

    Args:
        name: One of `list_models`.
        num_classes: K.
        options: What the model's own signature offers: ``backbone``, ``neck``, ``head_options`` and so on.

    Raises:
        UnknownNameError: If there is no such model, backbone or neck.
        PyrafuseError: If the model takes no such option, or the parts do not fit together: the message says which
            levels a neck or head was offered, and which it can take.
    """
    if num_classes < 1:
        raise PyrafuseError(f"a detector needs at least one class, got num_classes={num_classes}")
    builder = MODELS.get(name)
    if "neck" in options:
        options["neck"] = embed_graphs(options["neck"])
    try:
        detector = builder(num_classes, **options)
    except PyrafuseError:
        raise
    except (TypeError, ValueError) as error:  # the signature is the schema: its complaint names the option
        raise PyrafuseError(f"cannot build {name}: {error}") from error
    detector.card = Card(model=name, options={"num_classes": num_classes, **options})
    return detector


def list_models() -> tuple[str, ...]:
    """Names of all detectors."""
    return MODELS.names()


def list_parts() -> dict[str, tuple[str, ...]]:
    """Names of all parts by kind; any timm model with a pyramid is a backbone besides."""
    return {"backbone": BACKBONES.names(), "neck": NECKS.names(), "head": HEADS.names(), "model": MODELS.names()}
