"""Which published ImageNet weights a backbone can start from, and those that come with this package.

Free of torch, unless a backbone of timm is asked for.
"""

from collections.abc import Collection
from pathlib import Path

BUNDLED = {"mobilenet_v2": Path(__file__).parent / "pretrained" / "mobilenet_v2.safetensors"}
"""Backbones whose weights come with this package, as ``pyrafuse/NAME``; origin and licence lie beside the files."""

TORCHVISION = frozenset(
    {
        *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "vgg16",
        "mobilenet_v2",
        "mobilenet_v3_large",
    }
)
"""Backbones that torchvision publishes weights of under the same name."""

TIMM = frozenset({"dpn68", "dpn68b", "dpn92", "dpn98", "dpn107", "dpn131"})
"""Those that timm does."""

KEEPING = frozenset({"strides", "expanded", "frozen_stages", "norm_eval"})
"""Options that leave a backbone's parameters, and what they were trained for, as they were published."""


def name_published(backbone: str | None, options: Collection[str] = ()) -> str | None:
    """Name of ImageNet weights of ``backbone``, as ``--weights`` takes it; None where there are none that fit.

    Args:
        backbone: Registered name, or ``timm/NAME``.
        options: Names of the options that it is built with.
    """
    if backbone is None or not set(options) <= KEEPING:
        return None
    if backbone in BUNDLED:
        return f"pyrafuse/{backbone}"
    if backbone in TORCHVISION:
        return f"torchvision/{backbone}"
    if backbone in TIMM:
        return f"timm/{backbone}"
    if not backbone.startswith("timm/"):
        return None
    import timm

    return backbone if timm.is_model_pretrained(backbone.removeprefix("timm/")) else None
