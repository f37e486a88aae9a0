"""What mmdetection's detectors on COCO have in common: its schedule called 1x, and its images.

arXiv:1906.07155, section 4. Free of torch. model and options -> recipe
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

ARGUMENTS = "--data coco/ --weights torchvision/resnet50"
HARDWARE = "8 GPUs x 2 images"
BACKBONE: Mapping[str, Any] = MappingProxyType({"frozen_stages": 1, "norm_eval": True})
"""The stem, the first stage and all statistics of the batch norms stay as they are."""


def one_x(model: str, *, lr: float = 0.01, clip_norm: float = 0.0, **options: Any) -> Recipe:
    """12 epochs of 16 images at 1333 x 800 px: SGD, 500 steps of warm-up, a tenth of the rate from epochs 8 and 11 on.

    Args:
        model: Registered name.
        lr: Learning rate of the optimiser.
        clip_norm: Largest norm of the gradient; 0 does not clip.
        options: Further options of the model.
    """
    return Recipe(
        model=ModelSettings(name=model, options={"backbone": dict(BACKBONE), **options}),
        data=DataSettings(path="coco", size=800, longest=1333, fit="keep_ratio"),
        augmentation=replace(Augmentation.none(), flip_probability=0.5),
        optimizer=OptimizerSettings(lr=lr, lr_batch=16, weight_decay=1e-4, decay_all=True, clip_norm=clip_norm),
        schedule=ScheduleSettings(
            kind="step", steps=(8, 11), burn_in_steps=500, burn_in_power=1.0, burn_in_start=0.001
        ),
        run=RunSettings(epochs=12, batch_size=16, ema=0.0, precision="32", sync_bn=False, evaluate_every=1),
    )
