"""SSD on COCO and Pascal VOC, trained as mmdetection does, and SSDLite, as torchvision does.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325. None of these recipes has been run to its end here:
the published figures are those of mmdetection's and torchvision's checkpoints, on val 2017 and VOC test 2007.

Deviations of SSD: every image is looked at once an epoch, 120 times in all, where the original counts five times as an
epoch; images are normalised by ImageNet's mean and deviation, as torchvision's VGG-16 was trained; small boxes stay.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

AUGMENTATION = Augmentation(affine_probability=0.0, mixup_probability=0.0, min_box_px=0.0, crop_probability=6 / 7)
"""SSD's own: colour, a larger canvas, patches around objects, flips; section 2.2."""

_ssd = partial(
    recipe, paper="arXiv:1512.02325", hardware="8 GPUs x 8 images", arguments="--data coco/ --weights torchvision/vgg16"
)
_voc = partial(_ssd, arguments="--data voc/ --weights torchvision/vgg16")


@_ssd(published="25.5 AP at 300 px")
def ssd300_coco() -> Recipe:
    """Train SSD on COCO at 300 px."""
    return _ssd_recipe("ssd300", size=300, epochs=120, steps=(80, 110))


@_ssd(published="29.5 AP at 512 px")
def ssd512_coco() -> Recipe:
    """Train SSD on COCO at 512 px."""
    return _ssd_recipe("ssd512", size=512, epochs=120, steps=(80, 110))


@_voc(published="76.5 mAP (VOC 2007) at 300 px")
def ssd300_voc() -> Recipe:
    """Train SSD on Pascal VOC at 300 px, whose anchors begin larger."""
    given = _ssd_recipe("ssd300", size=300, epochs=240, steps=(160, 200), head={"coverage": [0.2, 0.9]})
    return replace(
        given, data=replace(given.data, path="voc"), optimizer=replace(given.optimizer, lr=1e-3, lr_batch=64)
    )


@recipe(
    paper="arXiv:1801.04381",
    published="21.3 AP at 320 px",
    hardware="8 GPUs x 24 images",
    arguments="--data coco/",
)
def ssdlite320_coco() -> Recipe:
    """Train SSDLite on MobileNetV3 with half of its last channels, from nothing, on COCO at 320 px."""
    given = _ssd_recipe("ssdlite320", size=320, epochs=660, steps=(), backbone={"reduced_tail": True})
    return replace(
        given,
        augmentation=replace(AUGMENTATION, color_probability=0.0, expand_probability=0.0),
        optimizer=OptimizerSettings(lr=0.15, lr_batch=192, weight_decay=4e-5, decay_all=True, clip_norm=0.0),
        schedule=ScheduleSettings(kind="cosine", burn_in_epochs=1.0, burn_in_power=1.0, min_lr=0.0, by_epoch=True),
        run=replace(given.run, batch_size=192, evaluate_every=20),
    )


def _ssd_recipe(name: str, *, size: int, epochs: int, steps: tuple[int, ...], **options: Any) -> Recipe:
    return Recipe(
        model=ModelSettings(name=name, options=options),
        data=DataSettings(path="coco", size=size),
        augmentation=AUGMENTATION,
        optimizer=OptimizerSettings(lr=2e-3, lr_batch=64, weight_decay=5e-4, decay_all=True, clip_norm=0.0),
        schedule=ScheduleSettings(kind="step", steps=steps, burn_in_steps=500, burn_in_power=1.0, burn_in_start=0.001),
        run=RunSettings(epochs=epochs, batch_size=64, ema=0.0, precision="32", sync_bn=False, evaluate_every=5),
    )
