"""M2Det on COCO, trained as its authors did.

Zhao et al., "M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network", arXiv:1811.04533. None
of these recipes has been run to its end here: the published figures are the authors', on test-dev at one scale.

Deviations: images are normalised by ImageNet's mean and deviation, as torchvision's backbones were trained. The
released detectors have no attention in SFAM; the recipes have it, as the paper does; the neck's option ``attention``
switches it off.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from pyrafuse.recipes.registry import recipe
from pyrafuse.recipes.ssd import AUGMENTATION
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

_vgg = partial(
    recipe,
    paper="arXiv:1811.04533",
    hardware="2 GPUs x 16 images",
    arguments="--data coco/ --weights torchvision/vgg16",
)
_resnet = partial(_vgg, arguments="--data coco/ --weights torchvision/resnet101")


@_vgg(published="33.5 AP at 320 px")
def m2det320_vgg_coco() -> Recipe:
    """Train M2Det on VGG-16 at 320 px."""
    return _m2det(size=320)


@_resnet(published="34.3 AP at 320 px")
def m2det320_resnet101_coco() -> Recipe:
    """Train M2Det on ResNet-101 at 320 px."""
    return _m2det(size=320, backbone="resnet101")


@_vgg(published="37.6 AP at 512 px")
def m2det512_vgg_coco() -> Recipe:
    """Train M2Det on VGG-16 at 512 px."""
    return _m2det(size=512)


@_resnet(published="38.8 AP at 512 px")
def m2det512_resnet101_coco() -> Recipe:
    """Train M2Det on ResNet-101 at 512 px."""
    return _m2det(size=512, backbone="resnet101")


@_vgg(published="41.0 AP at 800 px")
def m2det800_vgg_coco() -> Recipe:
    """Train M2Det on VGG-16 at 800 px."""
    return _m2det(size=800)


def _m2det(*, size: int, **model: Any) -> Recipe:
    return Recipe(
        model=ModelSettings(name="m2det", options={"head": {"size": size}}, **model),
        data=DataSettings(path="coco", size=size),
        augmentation=replace(AUGMENTATION, expand_probability=0.6, min_box_px=0.01 * size),
        optimizer=OptimizerSettings(lr=4e-3, lr_batch=32, weight_decay=5e-4, decay_all=True, clip_norm=0.0),
        schedule=ScheduleSettings(
            kind="step", steps=(90, 110, 130, 150), burn_in_epochs=5.0, burn_in_power=1.0, burn_in_start=2.5e-4
        ),
        run=RunSettings(epochs=160, batch_size=32, ema=0.0, precision="32", sync_bn=False, evaluate_every=5),
    )
