"""Detectors with softmax and mined negatives, trained whole: they learn eight images by heart."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.training import run as running
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

TRUNK = {"backbone": {"name": "resnet18", "width": 16, "strides": (8, 16)}}
SIZES = (12, 28, 48, 70, 96, 120)
MODELS = {
    "ssd300": {
        **TRUNK,
        "necks": {
            "ssd_extra": {"out_channels": (32, 32, 32), "strides": (2, 2, 1), "paddings": (1, 1, 0), "norm": True}
        },
        "head": {"sizes": SIZES},
    },
    "ssdlite320": {
        **TRUNK,
        "necks": {"ssd_extra": {"out_channels": (32, 32, 32), "strides": (2, 2, 1), "paddings": (1, 1, 0)}},
        "head": {"sizes": SIZES},
    },
    "m2det": {
        "backbone": {"name": "resnet18", "width": 16},
        "size": 128,
        "necks": {
            "mlfpn": {"num_levels": 2, "num_scales": 5, "channels": 32, "shallow_channels": 16, "deep_channels": 32}
        },
        "head": {"sizes": [size / 128 for size in SIZES], "steps": (8, 16, 32, 64, 128)},
    },
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Eight images, which are those of the evaluation as well."""
    folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=1, size=128)
    shutil.copy(folder / "instances_train.json", folder / "instances_val.json")
    return folder


# the norms of M2Det's neck follow what they see slowly
@pytest.mark.parametrize(
    ("name", "epochs"),
    [("ssd300", 80), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("ssdlite320", 120), ("m2det", 350)))],
)
def test_eight_images_are_learnt_by_heart(shapes, tmp_path, name, epochs):
    recipe = Recipe(
        model=ModelSettings(name=name, options=MODELS[name]),
        data=DataSettings(path=str(shapes), size=128, workers=0),
        augmentation=Augmentation.none(),
        optimizer=OptimizerSettings(name="adamw", lr=0.004, lr_batch=8, weight_decay=0.0),
        schedule=ScheduleSettings(burn_in_epochs=5, burn_in_power=1),
        run=RunSettings(
            epochs=epochs, batch_size=8, ema=0, evaluate_every=epochs, accelerator="cpu", output=str(tmp_path / "run")
        ),
    )
    result = running.train(recipe, console=Console(quiet=True))
    assert result.evaluation.ap50 > 0.9
    assert load(result.best).card.model == name
