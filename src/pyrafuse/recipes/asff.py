"""YOLOv3's strong baseline and ASFF on COCO, trained as their authors did.

Liu, Huang and Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv:1911.09516. None of these recipes
has been run to its end here: the published figures are the authors', on test-dev.

Deviations: mixup and changing sizes end with epoch 270, where the lowest rate begins; theirs go on to 271 and 290.
"""

from dataclasses import replace
from typing import Any

from pyrafuse.data.settings import Augmentation
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

ARGUMENTS = "--data coco/ --weights darknet53.pth"

# the authors' last anchor of the light model; the others are those of `YOLOv3Head`
_MOBILE_ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [42, 119]], [[116, 90], [156, 198], [373, 326]]]


@recipe(paper="arXiv:1911.09516", published="38.8 AP at 608 px", arguments=ARGUMENTS)
def yolov3_coco() -> Recipe:
    """Train the baseline: Darknet-53, SPP, guided anchoring, mixup, cosine."""
    return Recipe(
        model=ModelSettings(name="yolov3", options={"head_options": {"prior": 0.5}}),
        data=DataSettings(path="coco", size=608, sizes=tuple(range(320, 609, 32))),
        augmentation=Augmentation(),
        optimizer=OptimizerSettings(lr=0.001, lr_batch=50, weight_decay=5e-4, decay_all=True, clip_norm=0.0),
        schedule=ScheduleSettings(
            burn_in_epochs=5.0, burn_in_power=4.0, hold_epochs=20.0, min_lr=0.01, closing_epochs=31, by_epoch=True
        ),
        run=RunSettings(epochs=301, batch_size=50, ema=0.0, evaluate_every=10),
    )


@recipe(paper="arXiv:1911.09516", published="40.6 AP at 608 px", arguments=ARGUMENTS)
def yolov3_asff_coco() -> Recipe:
    """Train the baseline with adaptively spatial feature fusion."""
    return _with_model(name="yolov3_asff", options={"head_options": {"prior": 0.5}})


@recipe(paper="arXiv:1911.09516", arguments=ARGUMENTS.replace("darknet53", "mobilenet_v2"))
def yolov3_asff_mobilenetv2_coco() -> Recipe:
    """Train the light detector with ASFF on MobileNetV2."""
    return _with_model(
        name="yolov3_asff",
        backbone="mobilenet_v2",
        options={
            "backbone_options": {"classifier_conv": True},
            "neck_options": {
                "yolo_fpn": {"activation": "relu6", "widen": [False, False, False]},
                "asff": {"activation": "relu6"},
            },
            "head_options": {"prior": 0.5, "adaption": False, "anchors": _MOBILE_ANCHORS},
        },
    )


def _with_model(**settings: Any) -> Recipe:
    return replace(yolov3_coco(), model=ModelSettings(**settings))
