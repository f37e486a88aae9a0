"""Recipes for little data and no GPU: the default of `pyrafuse train`, and the demo."""

from dataclasses import replace

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.recipes.registry import recipe
from pyrafuse.training.settings import (
    AUTO_WEIGHTS,
    DEFAULT_MODEL,
    DEFAULT_SIZE,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)


@recipe(arguments="--data DATA")
def small() -> Recipe:
    """Train on a few hundred images on a processor; the defaults of `pyrafuse train`."""
    return Recipe(
        model=ModelSettings(name=DEFAULT_MODEL, backbone_weights=AUTO_WEIGHTS),
        data=DataSettings(size=DEFAULT_SIZE, fit="stretch"),
        # a few hundred images are soon overfitted: after 24 epochs of half as much Aquarium had AP 0.52 in training
        augmentation=replace(
            Augmentation.light(),
            color_strength=1.0,
            expand_max_ratio=2.0,
            crop_min_scale=0.4,
            affine_probability=0.3,
        ),
        optimizer=OptimizerSettings(name="adamw", lr=2e-3, lr_batch=8, weight_decay=0.05, backbone_lr=0.3),
        schedule=ScheduleSettings(burn_in_power=1.0, min_lr=0.02),
        run=RunSettings(epochs=30, batch_size=8, fit_memory=True, ema=0.998),
    )


@recipe()
def shapes_demo() -> Recipe:
    """Learn generated shapes from nothing, in minutes on two cores: what `pyrafuse demo` runs."""
    return Recipe(
        model=ModelSettings(
            name="yolov3_asff",
            options={
                "backbone": {"width": 0.25, "depths": [1, 1, 2, 2, 1]},
                "necks": {
                    "yolo_fpn": {"channels": [32, 64, 128], "widen": [False, False, False]},
                    "asff": {"out_channels": [64, 96, 128]},
                },
                "head": {"adaption": False, "reach": 1.0},
                # from nothing, one positive an object would take many times as long
                "criterion": {"assigner": "neighbours", "iou_objectness": True},
            },
        ),
        data=DataSettings(path="shapes:train=400,val=100,size=256,seed=0", size=256),
        optimizer=OptimizerSettings(name="adamw", lr=2e-3, lr_batch=16, weight_decay=0.02),
        schedule=ScheduleSettings(burn_in_power=1.0, min_lr=0.02, closing_epochs=1),
        run=RunSettings(epochs=12, batch_size=16, ema=0.998, evaluate_every=3),
    )
