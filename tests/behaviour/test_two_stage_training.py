"""A detector that looks twice, trained whole: it learns eight images by heart, and its checkpoint finds them again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pyrafuse.core.storage import read_tensors
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.models.detector import Detector
from pyrafuse.models.two_stage import TwoStageDetector
from pyrafuse.training import run as running
from pyrafuse.training import validating
from pyrafuse.training.reporting import read_history
from pyrafuse.training.settings import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

FEW = {"max_per_level": 200, "max_regions": 100}
TINY = {
    "backbone": {"name": "resnet18", "width": 16},
    "necks": {"fpn": {"out_channels": 32}},
    "head": {"scales": (4.0,)},
    "stages": {"head": {"channels": 64}, "sampler": {"number": 64}},
    "proposals": FEW,
    "learning_proposals": FEW,
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Eight images, which are those of the evaluation as well."""
    folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=1, size=128)
    shutil.copy(folder / "instances_train.json", folder / "instances_val.json")
    return folder


@pytest.mark.parametrize(
    "name", ["faster_rcnn", *(pytest.param(n, marks=pytest.mark.slow) for n in ("libra_rcnn", "cascade_rcnn"))]
)
def test_eight_images_are_learnt_by_heart(shapes, tmp_path, name):
    recipe = Recipe(
        model=ModelSettings(name=name, options=TINY),
        data=DataSettings(path=str(shapes), size=128, workers=0),
        augmentation=Augmentation.none(),
        optimizer=OptimizerSettings(name="adamw", lr=0.003, lr_batch=8, weight_decay=0.0),
        schedule=ScheduleSettings(burn_in_epochs=5, burn_in_power=1),
        run=RunSettings(
            epochs=110, batch_size=8, ema=0, evaluate_every=110, accelerator="cpu", output=str(tmp_path / "run")
        ),
    )
    result = running.train(recipe, console=Console(quiet=True))
    assert result.evaluation.ap50 > 0.9
    history = read_history(result.folder)
    assert history["train/loss"][-1] < history["train/loss"][0] / 4
    assert history["level/stride_4/loss_proposal_classification"][-1] > 0

    detector = load(result.best)
    truth = json.loads((shapes / "instances_train.json").read_text())
    wanted = sum(a["image_id"] == 1 for a in truth["annotations"])
    (found,) = detector.predict(shapes / "images" / truth["images"][0]["file_name"], score=0.5)
    assert abs(len(found) - wanted) <= 1


@pytest.mark.parametrize("name", ["faster_rcnn", "ddod"])
def test_validation_losses_leave_the_training_as_it_is(shapes, tmp_path, monkeypatch, name):
    """Two-stage detectors draw samples, and DDOD counts positives: neither may depend on being validated."""
    options = TINY if name == "faster_rcnn" else {"backbone": {"name": "resnet18", "width": 16}}
    recipe = Recipe(
        model=ModelSettings(name=name, options=options),
        data=DataSettings(path=str(shapes), size=64, workers=0),
        schedule=ScheduleSettings(burn_in_epochs=0),
        run=RunSettings(epochs=2, batch_size=4, ema=0.9, evaluate_every=1, accelerator="cpu", precision="32"),
    )

    def train(folder: str):
        run = replace(recipe.run, output=str(tmp_path / folder))
        return running.train(replace(recipe, run=run), console=Console(quiet=True))

    whole = train("whole")
    history = read_history(whole.folder)
    terms = [key for key in history if key.startswith("val/loss_")]
    assert {key.replace("val", "train") for key in terms} == {key for key in history if key.startswith("train/loss_")}
    for epoch in range(2):
        assert history["val/loss"][epoch] == pytest.approx(sum(history[key][epoch] for key in terms), rel=1e-4)
        assert history["val/loss"][epoch] > 0
    for kind in (Detector, TwoStageDetector):
        monkeypatch.setattr(
            kind, "predict_and_learn", lambda self, images, _, *, sizes: (self(images, sizes=sizes),) * 2
        )
    monkeypatch.setattr(validating, "add_losses", lambda *_: None)
    bare = train("bare")
    assert not [key for key in read_history(bare.folder) if key.startswith("val/loss")]
    first, second = read_tensors(whole.last), read_tensors(bare.last)
    for key in ("state_dict", "current_model_state"):
        assert first[key].keys() == second[key].keys()
        for entry, value in first[key].items():
            assert torch.equal(second[key][entry], value), entry
    assert torch.equal(first["random_state"]["cpu"], second["random_state"]["cpu"])
    assert whole.evaluation.to_dict() == bare.evaluation.to_dict()
