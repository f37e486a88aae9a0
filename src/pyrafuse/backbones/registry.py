"""All backbones by name, any of timm's among them, and their pretrained weights."""

import inspect
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pyrafuse.backbones.timm_pyramid import TimmPyramid
from pyrafuse.base.errors import PyrafuseError, nearest
from pyrafuse.base.registry import Registry
from pyrafuse.core.pyramid import Backbone

BACKBONES: Registry[Backbone] = Registry("backbone", "pyrafuse.backbones")


def create_backbone(name: str, *, weights: str | os.PathLike[str] | None = None, **options: Any) -> Backbone:
    """Build a backbone: one of `BACKBONES`, or ``timm/NAME`` for any timm model with a feature pyramid.

    Args:
        name: Registered name, or ``timm/NAME``.
        weights: Checkpoint of the backbone alone, as published (classifier keys are left aside).
        options: Keyword arguments of the backbone's constructor.

    Raises:
        UnknownNameError: If there is no such backbone.
        PyrafuseError: If it takes no such option, or the options do not go together.
        CheckpointError: If ``weights`` cannot be read or does not fit; missing and extra keys are named.
    """
    is_timm = name.startswith("timm/")
    builder = partial(TimmPyramid, name.removeprefix("timm/")) if is_timm else BACKBONES.get(name)
    _check_options(name, builder, options)
    return builder(weights=weights, **options)


def _check_options(name: str, builder: Callable[..., Backbone], options: Iterable[str]) -> None:
    """Refuse options that the builder's signature, which is their schema, does not have."""
    parameters = inspect.signature(builder).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for option in options:
        if option not in known:
            near = nearest(option, known)
            hint = f" did you mean {near!r}?" if near else ""
            raise PyrafuseError(
                f"cannot build {name}: it takes no option {option!r};{hint} choose from {', '.join(sorted(known))}"
            )
