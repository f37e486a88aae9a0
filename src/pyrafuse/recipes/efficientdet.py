"""EfficientDet-D0 to D3 on COCO, trained as the paper says.

Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", arXiv:1911.09070, section 5.1. None of these
recipes has been run to its end here: the published figures are the authors', on test-dev.

Deviations: images are scaled up to twice through crops of half their side, and down to half on a larger canvas, where
the authors draw from 0.1 to 2; the rate falls to a hundredth, not to zero.
"""

from functools import partial

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.preprocessing import PreprocessingSettings
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

_coco = partial(recipe, paper="arXiv:1911.09070", hardware="32 TPU cores x 4 images")


@_coco(published="34.6 AP at 512 px", arguments="--data coco/ --weights timm/efficientnet_b0")
def efficientdet_d0_coco() -> Recipe:
    """Train EfficientDet-D0."""
    return _efficientdet("efficientdet_d0", size=512)


@_coco(published="40.5 AP at 640 px", arguments="--data coco/ --weights timm/efficientnet_b1")
def efficientdet_d1_coco() -> Recipe:
    """Train EfficientDet-D1."""
    return _efficientdet("efficientdet_d1", size=640)


@_coco(published="43.9 AP at 768 px", arguments="--data coco/ --weights timm/efficientnet_b2")
def efficientdet_d2_coco() -> Recipe:
    """Train EfficientDet-D2."""
    return _efficientdet("efficientdet_d2", size=768)


@_coco(published="47.2 AP at 896 px", arguments="--data coco/ --weights timm/efficientnet_b3")
def efficientdet_d3_coco() -> Recipe:
    """Train EfficientDet-D3."""
    return _efficientdet("efficientdet_d3", size=896)


def _efficientdet(name: str, *, size: int) -> Recipe:
    return Recipe(
        model=ModelSettings(name=name),
        data=DataSettings(path="coco", size=size, fit="letterbox"),
        preprocessing=PreprocessingSettings(interpolation="antialias"),  # timm's classifiers have a bicubic one
        augmentation=Augmentation(
            color_probability=0.0,
            expand_max_ratio=2.0,
            crop_min_scale=0.5,
            affine_probability=0.0,
            mixup_probability=0.0,
            random_interpolation=False,
            min_box_px=0.0,
        ),
        optimizer=OptimizerSettings(lr=0.16, lr_batch=128, weight_decay=4e-5, decay_all=True, clip_norm=10.0),
        schedule=ScheduleSettings(burn_in_epochs=1.0, burn_in_power=1.0),
        run=RunSettings(epochs=300, batch_size=128, ema=0.9998, precision="32", evaluate_every=10),
    )
