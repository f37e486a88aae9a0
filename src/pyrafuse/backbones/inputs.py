"""How a pretrained backbone saw its images in training: name or file of its weights -> `Preprocessing`."""

import os
import re
from functools import cache
from typing import Any

import timm
import torchvision

from pyrafuse.backbones.published import BUNDLED
from pyrafuse.base.preprocessing import Interpolation, Preprocessing

Colours = tuple[tuple[float, float, float], tuple[float, float, float], bool]
"""Mean and deviation of red, green and blue in 0..255, and whether blue comes first."""

_ONE = (1.0, 1.0, 1.0)
_CAFFE: Colours = ((123.675, 116.28, 103.53), _ONE, True)
_FILES: tuple[tuple[str, Colours], ...] = (
    (r"resnet\d+_caffe\b", ((122.7717, 115.9465, 102.9801), _ONE, True)),
    (r"resnet\d+_msra\b", _CAFFE),
    (r"vgg16_caffe\b", ((123.675, 116.28, 103.53), _ONE, False)),
    (r"vgg16_reducedfc\b", ((123.0, 117.0, 104.0), _ONE, False)),
    (r"darknet53-a628ea1b\b", ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), False)),
)
"""Beginnings of the names of files that mmdetection and M2Det start from."""


def find_input(weights: str | os.PathLike[str], *, backbone: str = "", style: str = "") -> Preprocessing | None:
    """How images were made ready where ``weights`` were trained; at the default size and fit.

    Args:
        weights: ``pyrafuse/NAME``, ``torchvision/NAME``, ``timm/NAME`` or a file. A file is known by the name that it
            was published under.
        backbone: What is filled with them; a file for ``timm/NAME`` was trained as timm says of that model.
        style: The ResNet's; ``caffe`` tells weights that come from Caffe.

    Returns:
        None where nothing is known of them.
    """
    library, _, name = os.fspath(weights).partition("/")
    if library in _FINDERS and not os.path.exists(weights):
        return _FINDERS[library](name)
    file = os.path.basename(weights)
    for entry in _torchvision_weights():
        if file == os.path.basename(entry.url):
            return _from_torchvision(entry)
    for beginning, colours in _FILES:
        if re.match(beginning, file):
            return _from_colours(colours)
    if backbone.startswith("timm/"):
        return _find_timm(backbone.removeprefix("timm/"))
    return _from_colours(_CAFFE) if style == "caffe" else None


def _find_timm(name: str) -> Preprocessing | None:
    published: Any = timm.get_pretrained_cfg(name)
    if published is None:
        return None
    return _create(published.mean, published.std, interpolation=_resizing(published.interpolation))


def _find_torchvision(name: str) -> Preprocessing | None:
    if name not in torchvision.models.list_models():  # reading them tells the fault
        return None
    published: Any = torchvision.models.get_model_weights(name)
    return _from_torchvision(published.DEFAULT)


def _from_torchvision(entry: Any) -> Preprocessing:
    transforms = entry.transforms()
    return _create(transforms.mean, transforms.std, interpolation=_resizing(transforms.interpolation.value))


def _from_colours(colours: Colours) -> Preprocessing:
    mean, std, bgr = colours
    return _create((m / 255 for m in mean), (s / 255 for s in std), interpolation="opencv", bgr=bgr)


def _resizing(method: str) -> Interpolation:
    return "bicubic" if method == "bicubic" else "antialias"


def _create(mean: Any, std: Any, *, interpolation: Interpolation, bgr: bool = False) -> Preprocessing:
    (red, green, blue), (of_red, of_green, of_blue) = map(float, mean), map(float, std)
    return Preprocessing(mean=(red, green, blue), std=(of_red, of_green, of_blue), interpolation=interpolation, bgr=bgr)


@cache
def _torchvision_weights() -> tuple[Any, ...]:
    """Every published weights of every classifier of torchvision."""
    names = torchvision.models.list_models(module=torchvision.models)
    return tuple(entry for name in names for entry in torchvision.models.get_model_weights(name))


def _find_bundled(name: str) -> Preprocessing | None:
    return Preprocessing() if name in BUNDLED else None  # all of them saw ImageNet's usual one


_FINDERS = {"pyrafuse": _find_bundled, "timm": _find_timm, "torchvision": _find_torchvision}
