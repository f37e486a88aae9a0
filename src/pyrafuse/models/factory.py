"""Detectors and backbones by name: where strings end and objects begin."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any

import torch

from pyrafuse.backbones.registry import BACKBONES, create_backbone
from pyrafuse.base.errors import PyrafuseError
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
        options: What the model's own signature offers: ``backbone``, ``neck``, ``head_options`` and so on. A neck is a
            registered name, a `Graph`, the file or text of one, or several of these in a row.

    Raises:
        UnknownNameError: If there is no such model, backbone or neck.
        PyrafuseError: If the model takes no such option, or the parts do not fit together: the message says which
            levels a neck or head was offered, and which it can take.
    """
    builder = MODELS.get(name)
    options = {"num_classes": num_classes, **_embed(options)}
    detector = _build(name, builder, options)
    detector.card = Card(model=name, options=options, defaults=_plain_defaults(builder))
    return detector


def rebuild(card: Card) -> Detector:
    """Build the detector that ``card`` describes, with fresh weights, whatever its name's defaults are by now.

    A card without defaults is built with those of today.

    Raises:
        PyrafuseError: As `create_model`.
    """
    builder = MODELS.get(card.model)
    if card.defaults is None:
        detector = _build(card.model, builder, card.options)
    else:
        detector = _build(card.model, _without_defaults(builder), {**card.defaults, **card.options})
    detector.card = card
    return detector


def vary(card: Card, *, num_classes: int, options: Mapping[str, Any]) -> Detector:
    """Build the model of ``card`` with other ``options`` in place of all of its own, and its own defaults.

    Raises:
        PyrafuseError: As `create_model`.
    """
    return rebuild(replace(card, options={"num_classes": num_classes, **_embed(options)}))


def _embed(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` with graphs as their texts, of a backbone that has a neck of its own too."""
    embedded = dict(options)
    if "neck" in options:
        embedded["neck"] = embed_graphs(options["neck"])
    if isinstance(inner := options.get("backbone_options"), Mapping) and "neck" in inner:
        embedded["backbone_options"] = _embed(inner)
    return embedded


def _build(name: str, builder: Callable[..., Detector], options: Mapping[str, Any]) -> Detector:
    options = dict(options)
    num_classes = options.pop("num_classes", 80)
    if not isinstance(num_classes, Integral) or num_classes < 1:
        raise PyrafuseError(f"a detector needs at least one class, got num_classes={num_classes!r}; say how many")
    try:
        detector = builder(num_classes, **options)
    except PyrafuseError:
        raise
    except (TypeError, ValueError) as error:  # the signature is the schema: its complaint names the option
        raise PyrafuseError(f"cannot build {name}: {error}") from error
    # weights lie in memory as the maps do, or each convolution would copy its own each time
    for parameter in detector.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return detector


def _plain_defaults(builder: Callable[..., Detector]) -> dict[str, Any]:
    """The arguments that ``builder`` gives itself, by its signature or as a `partial`; plain ones."""
    given = inspect.signature(builder).parameters.values()
    return {p.name: _to_dicts(p.default) for p in given if p.kind is p.KEYWORD_ONLY and _is_plain(p.default)}


def _without_defaults(builder: Callable[..., Detector]) -> Callable[..., Detector]:
    """``builder`` without the plain arguments that it has as a `partial`."""
    if not isinstance(builder, partial):
        return builder
    return partial(builder.func, *builder.args, **{k: v for k, v in builder.keywords.items() if not _is_plain(v)})


def _to_dicts(value: Any) -> Any:
    return {k: _to_dicts(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def list_models() -> tuple[str, ...]:
    """Names of all detectors."""
    return MODELS.names()


def list_parts() -> dict[str, tuple[str, ...]]:
    """Names of all parts by kind; any timm model with a pyramid is a backbone besides."""
    return {"backbone": BACKBONES.names(), "neck": NECKS.names(), "head": HEADS.names(), "model": MODELS.names()}
