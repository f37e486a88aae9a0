"""YOLOv3's strong baseline, ASFF and ASFF* on COCO and Pascal VOC, trained as their authors did.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516. None of these recipes
has been run to its end here: the published figures are the authors', on test-dev. `pyrafuse.recipes.tricks` has a
switch for each ingredient.

Deviations: the authors evaluate every epoch from 271 on; their light model's last ten epochs are at 608 px, though it
is measured at 416. ASFF* was published after a longer training, whose length their code does not give.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.recipes.registry import recipe
from pyrafuse.recipes.tricks import DROPBLOCK_PHASES
from pyrafuse.training.settings import (
    SIZES,
    DataSettings,
    DropBlockSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

# the authors' last anchor of the light model; the others are those of `YOLOv3Head`
_MOBILE_ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [42, 119]], [[116, 90], [156, 198], [373, 326]]]
_OPTIONS: dict[str, Any] = {"head": {"prior": 0.5}, "criterion": {"label_smoothing": True}}

_coco = partial(
    recipe,
    paper="arXiv:1911.09516",
    hardware="10 GPUs x 5 images",
    arguments="--data coco/ --weights darknet53.pth",
)
_voc = partial(_coco, published="no figure in the paper", arguments="--data voc/ --weights darknet53.pth")


@_coco(published="38.8 AP at 608 px")
def yolov3_coco() -> Recipe:
    """Train the baseline: Darknet-53, SPP, guided anchoring, mixup, cosine."""
    return Recipe(
        model=ModelSettings(name="yolov3", options=_OPTIONS),
        data=DataSettings(path="coco", size=608, sizes=SIZES),
        augmentation=Augmentation(),
        optimizer=OptimizerSettings(lr=0.001, lr_batch=50, weight_decay=5e-4, decay_all=True, clip_norm=0.0),
        schedule=ScheduleSettings(
            burn_in_epochs=5.0,
            burn_in_power=4.0,
            burn_in_full_batches=True,
            hold_epochs=20.0,
            min_lr=0.01,
            steps=(180, 240),
            closing_epochs=31,  # the lowest rate from epoch 270 on, from 0
            unmixed_epochs=29,  # epoch 271 is still mixed
            one_size_epochs=10,  # epoch 290 still has many sizes
            by_epoch=True,
        ),
        run=RunSettings(epochs=301, batch_size=50, ema=0.0, precision="32", evaluate_every=10),
    )


@_coco(published="40.6 AP at 608 px")
def yolov3_asff_coco() -> Recipe:
    """Train the baseline with adaptively spatial feature fusion."""
    return _with_model(yolov3_coco(), name="yolov3_asff", options=_OPTIONS)


@_coco(published="42.4 AP at 608 px, 43.9 AP at 800 px")
def yolov3_asff_star_coco() -> Recipe:
    """Train ASFF*: ASFF with receptive field blocks and DropBlock."""
    options = {
        **_OPTIONS,
        "head": {"prior": 0.5, "rfb": True},
        "necks": {"asff": {"weight_channels": 8}},
    }
    stronger = _with_model(yolov3_coco(), name="yolov3_asff", options=options)
    return replace(stronger, dropblock=DropBlockSettings(phases=DROPBLOCK_PHASES))


@_coco(published="30.6 AP at 416 px", arguments="--data coco/ --weights torchvision/mobilenet_v2")
def yolov3_asff_mobilenetv2_coco() -> Recipe:
    """Train the light detector with ASFF on MobileNetV2."""
    light = _with_model(
        yolov3_coco(),
        name="yolov3_asff",
        backbone="mobilenet_v2",
        options={
            **_OPTIONS,
            "backbone": {"classifier_conv": True},
            "necks": {
                "yolo_fpn": {"activation": "relu6", "widen": [False, False, False]},
                "asff": {"activation": "relu6"},
            },
            "head": {"prior": 0.5, "adaption": False, "anchors": _MOBILE_ANCHORS},
        },
    )
    return _at(light, size=416)


@_voc()
def yolov3_voc() -> Recipe:
    """Train the baseline on Pascal VOC; the last epochs, and evaluation, at 416 px."""
    return _at(yolov3_coco(), size=416, path="voc")


@_voc()
def yolov3_asff_voc() -> Recipe:
    """Train the baseline with ASFF on Pascal VOC; the last epochs, and evaluation, at 416 px."""
    return _at(yolov3_asff_coco(), size=416, path="voc")


def _with_model(given: Recipe, **settings: Any) -> Recipe:
    return replace(given, model=ModelSettings(**settings))


def _at(given: Recipe, *, size: int, path: str | None = None) -> Recipe:
    return replace(given, data=replace(given.data, size=size, path=given.data.path if path is None else path))
