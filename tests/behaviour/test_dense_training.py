"""Dense detectors, and the recursive pyramid's cascade, trained whole: they learn eight images by heart."""

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

TRUNK = {"backbone": {"name": "resnet18", "width": 16}}
HEAD = {"channels": 32, "num_convs": 1}
TINY = {**TRUNK, "necks": {"fpn": {"out_channels": 32}}, "head": HEAD}
# where a small object has a cell or two at stride 8, and others want these too
FINE = {
    "backbone": {"name": "resnet18", "width": 16, "strides": (4, 8, 16)},
    "necks": {"fpn": {"out_channels": 32, "num_levels": 3}},
    "head": HEAD,
}
FEW = {"max_per_level": 200, "max_regions": 100}
OPTIONS = {
    "retinanet": TINY,
    "retinanet_nas_fpn": {**TINY, "necks": {"nas_fpn": {"out_channels": 32, "stack": 1}}},
    "libra_retinanet": TINY,
    "ga_retinanet": {
        **TINY,
        "head": {**HEAD, "scale": 1.5},
        "criterion": {"location_assigner": {"side": 1.5}},
    },
    "atss": FINE,
    "ddod": TINY,
    "fcos": {**FINE, "criterion": {"assigner": {"radius": 1.5}}},
    "ddod_fcos": FINE,
    "efficientdet_d0": {
        **TRUNK,
        "necks": {"bifpn": {"out_channels": 32, "repeats": 1}},
        "head": {"num_convs": 1},
    },
    "cascade_rcnn_rfp": {
        "backbone": {
            "backbone": {"name": "resnet18", "width": 16, "strides": (4, 8, 16, 32)},
            "necks": {"fpn": {"out_channels": 32, "num_levels": 5}},
        },
        "head": {"scales": (4.0,)},
        "stages": {"head": {"channels": 64}, "sampler": {"number": 64}},
        "proposals": FEW,
        "learning_proposals": FEW,
    },
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Eight images, which are those of the evaluation as well."""
    folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=1, size=128)
    shutil.copy(folder / "instances_train.json", folder / "instances_val.json")
    return folder


LEARNT = [
    ("retinanet", 120, 0.003),
    ("atss", 80, 0.003),
    ("ddod", 120, 0.003),
    ("fcos", 100, 0.003),
    ("retinanet_nas_fpn", 150, 0.004),
    ("libra_retinanet", 130, 0.003),
    ("ga_retinanet", 140, 0.003),
    ("ddod_fcos", 80, 0.003),
    ("efficientdet_d0", 250, 0.005),  # the statistics of its norms follow what they see slowly
    ("cascade_rcnn_rfp", 110, 0.003),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs", "lr"), LEARNT)
def test_eight_images_are_learnt_by_heart(shapes, tmp_path, name, epochs, lr):
    recipe = Recipe(
        model=ModelSettings(name=name, options=OPTIONS[name]),
        data=DataSettings(path=str(shapes), size=128, workers=0),
        augmentation=Augmentation.none(),
        optimizer=OptimizerSettings(name="adamw", lr=lr, lr_batch=8, weight_decay=0.0),
        schedule=ScheduleSettings(burn_in_epochs=5, burn_in_power=1),
        run=RunSettings(
            epochs=epochs, batch_size=8, ema=0, evaluate_every=epochs, accelerator="cpu", output=str(tmp_path / "run")
        ),
    )
    result = running.train(recipe, console=Console(quiet=True))
    assert result.evaluation.ap50 > 0.9
    assert load(result.best).card.model == name
