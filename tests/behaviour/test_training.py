"""Whole trainings of tiny detectors: they learn, go on as if never stopped, and say what went wrong."""

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.storage import read_tensors
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.evaluating import evaluate
from pyrafuse.models.factory import create_model
from pyrafuse.training import loop
from pyrafuse.training import run as running
from pyrafuse.training.loggers.registry import LOGGERS, Logger
from pyrafuse.training.reporting import read_history
from pyrafuse.training.settings import (
    DataSettings,
    DropBlockSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
    to_plain,
)
from pyrafuse.training.starting import settle

TINY = {
    "backbone": {"width": 0.25, "depths": (1, 1, 1, 1, 1)},
    "necks": {"yolo_fpn": {"width": 1 / 8}, "asff": {"out_channels": (32, 48, 64)}},
    "head": {"anchors": (((8, 8), (12, 12), (16, 16)), ((20, 20), (28, 28), (36, 36)), ((44, 44), (56, 56), (64, 64)))},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """Eight images, which are those of the evaluation as well."""
    folder = write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=8, num_val=1, size=128)
    shutil.copy(folder / "instances_train.json", folder / "instances_val.json")
    return folder


def recipe_for(shapes: Path, output: Path, *, epochs: int) -> Recipe:
    """Small, but with everything that could differ after a resume: order, augmentation, sizes, averages, schedule."""
    return Recipe(
        model=ModelSettings(name="yolov3_asff", options=TINY),
        data=DataSettings(path=str(shapes), size=96, sizes=(64, 96), workers=0),
        optimizer=OptimizerSettings(lr=0.01, lr_batch=4),
        schedule=ScheduleSettings(burn_in_epochs=1.5),
        # a precision chosen by measurement may differ from run to run on a busy machine
        run=RunSettings(
            epochs=epochs,
            batch_size=4,
            ema=0.9,
            evaluate_every=1,
            accelerator="cpu",
            output=str(output),
            precision="32",
        ),
    )


def train(recipe: Recipe) -> running.TrainingResult:
    return running.train(recipe, console=Console(quiet=True))


def test_eight_images_are_learnt_by_heart(shapes, tmp_path):
    recipe = Recipe(
        model=ModelSettings(name="yolov3_asff", options=TINY),
        data=DataSettings(path=str(shapes), size=128, workers=0),
        augmentation=Augmentation.none(),
        optimizer=OptimizerSettings(name="adamw", lr=0.008, lr_batch=8, weight_decay=0.0),
        schedule=ScheduleSettings(burn_in_epochs=5, burn_in_power=1),
        run=RunSettings(
            epochs=100, batch_size=8, ema=0, evaluate_every=100, accelerator="cpu", output=str(tmp_path / "run")
        ),
    )
    result = train(recipe)
    assert result.evaluation.ap50 > 0.95
    assert json.loads((result.folder / "results.json").read_text())["ap50"] == result.evaluation.ap50

    # the checkpoint alone is a detector that finds them again
    detector = load(result.best)
    assert detector.names == ("circle", "square", "triangle", "star", "cross")
    truth = json.loads((shapes / "instances_train.json").read_text())
    wanted = sum(a["image_id"] == 1 for a in truth["annotations"])
    (found,) = detector.predict(shapes / "images" / truth["images"][0]["file_name"], score=0.3)
    assert abs(len(found) - wanted) <= 1
    with (result.folder / "metrics.csv").open() as stream:
        losses = [float(row["train/loss"]) for row in csv.DictReader(stream)]
    assert len(losses) == 100
    assert losses[-1] < losses[0] / 4


def test_frozen_layers_keep_their_weights_and_statistics(shapes, tmp_path):
    torch.manual_seed(0)
    options = {"backbone": {"width": 0.25}}
    start = create_model("yolov3_small", num_classes=5, **options)
    save(start, tmp_path / "start.ckpt")
    recipe = recipe_for(shapes, tmp_path / "run", epochs=1)
    model = ModelSettings("yolov3_small", options=options, frozen=1, start_from=str(tmp_path / "start.ckpt"))
    after = load(train(replace(recipe, model=model, run=replace(recipe.run, ema=0))).last).state_dict()
    before = {k: v for k, v in start.state_dict().items() if k.startswith("backbone.")}
    moved = {key.split(".")[2] for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {str(layer) for layer in range(2, 18)}


@pytest.fixture
def told():
    """What the logger ``told`` is told; ``broken`` fails as soon as it is told anything."""
    values = []

    class Told(Logger):
        def __init__(self, run):
            values.append((run.folder.name, run.settings["run"]["batch_size"], run.is_resumed))

        def log(self, figures, step):
            values.append((dict(figures), step))

        def close(self):
            values.append("closed")

    class Broken(Told):
        def log(self, figures, step):
            raise ConnectionError("gone")

    LOGGERS.add("told", Told)
    LOGGERS.add("broken", Broken)
    yield values
    del LOGGERS._entries["told"], LOGGERS._entries["broken"]


def test_a_training_ends_with_the_figures_of_evaluate(shapes, tmp_path, told):
    recipe = recipe_for(shapes, tmp_path / "run", epochs=4)
    model = ModelSettings("yolov3_small", options={"backbone": {"width": 0.25}})
    run = replace(recipe.run, ema=0, precision="bf16", evaluate_every=4, loggers=("told", "broken"))
    result = train(
        replace(recipe, model=model, run=run, optimizer=OptimizerSettings(name="adamw", lr=2e-3, lr_batch=4))
    )
    again = evaluate(load(result.best), read_split(str(shapes), "val").data, workers=0)
    assert result.evaluation.ar_100 > 0
    assert again.figures() == pytest.approx(result.evaluation.figures(), nan_ok=True, abs=1e-6)

    assert told[:2] == [("run", 4, False)] * 2
    assert told[-1] == "closed"
    steps, epochs = told[2:-1:2], [*told[3:-1:2], told[-2]]  # 2 steps an epoch, and the validation behind the last
    assert [list(figures) for figures, _ in steps[:4]] == [["train/loss_step"]] * 4
    assert [step for _, step in told[2:-1]] == [2, 2, 4, 4, 6, 6, 8, 8, 8]
    assert [figures["epoch"] for figures, _ in epochs[:4]] == [1, 2, 3, 4]
    rows = read_history(result.folder)
    assert [figures["train/loss"] for figures, _ in epochs[:4]] == pytest.approx(rows["train/loss"], rel=1e-5)
    assert told[-2][0]["val/ap"] == pytest.approx(rows["val/ap"][-1], rel=1e-5)


class Stopped(Exception):  # noqa: N818
    """What ends a run in the middle."""


def test_a_resumed_run_is_the_uninterrupted_one(shapes, tmp_path, monkeypatch):
    dropblock = DropBlockSettings(phases=((1, 3, 1, 1), (3, 5, 3, 1)))  # random, and other squares after the resume
    whole = train(replace(recipe_for(shapes, tmp_path / "whole", epochs=4), dropblock=dropblock))

    learn = loop.learn

    def stop_in_third_epoch(state, course, step, *, epoch):
        for learnt in learn(state, course, step, epoch=epoch):
            yield learnt
            if epoch == 2:
                raise Stopped

    recipe = replace(recipe_for(shapes, tmp_path / "stopped", epochs=4), dropblock=dropblock)
    monkeypatch.setattr(loop, "learn", stop_in_third_epoch)
    with pytest.raises(Stopped):
        train(recipe)
    monkeypatch.undo()
    torch.manual_seed(1234)  # whatever happened in between
    resumed = train(replace(recipe, run=replace(recipe.run, resume=True)))

    first, second = read_tensors(whole.last), read_tensors(resumed.last)
    assert first["epoch"] == second["epoch"] == 3
    for key in ("state_dict", "current_model_state", "optimizer_states", "random_state"):
        assert_same(first[key], second[key], key)
    written = yaml.safe_load((resumed.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert written == to_plain(settle(recipe)[0])  # a copy of it starts anew
    assert resumed.evaluation.to_dict() == whole.evaluation.to_dict()
    assert (resumed.folder / "metrics.csv").read_text() == (whole.folder / "metrics.csv").read_text()
    with (whole.folder / "metrics.csv").open() as stream:
        *_, last = csv.DictReader(stream)
    for stride in (8, 16, 32):
        assert float(last[f"level/stride_{stride}/gradient"]) > 0
        assert float(last[f"level/stride_{stride}/loss_objectness"]) > 0
        weights = [float(last[f"fusion/stride_{stride}/from_stride_{source}"]) for source in (8, 16, 32)]
        assert sum(weights) == pytest.approx(1, abs=1e-4)


def test_processes_that_start_alike_must_be_told_their_folder(shapes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_for(shapes, tmp_path / "run", epochs=1)
    recipe = replace(recipe, run=replace(recipe.run, output=None))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PyrafuseError, match="several processes need one folder"):
        train(recipe)
    assert not list(tmp_path.glob("runs/*"))


def assert_same(first, second, place: str) -> None:
    """Equal to the last bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_same(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), place
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{place}.{i}")
    else:
        assert first == second, place


def test_a_full_disk_leaves_the_checkpoint_before(shapes, tmp_path, monkeypatch):
    recipe = recipe_for(shapes, tmp_path / "run", epochs=2)
    last = tmp_path / "run" / "last.ckpt"
    sync = os.fsync

    def fsync(handle: int) -> None:
        if last.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PyrafuseError, match=r"cannot write .*: No space left on device; free"):
        train(recipe)
    monkeypatch.undo()
    assert read_tensors(last)["epoch"] == 0
    assert not [path.name for path in last.parent.iterdir() if path.name.startswith(".")]
    finished = train(replace(recipe, run=replace(recipe.run, resume=True)))
    assert read_tensors(finished.last)["epoch"] == 1


def test_a_loss_that_is_no_number_stops_and_keeps_the_batch(shapes, tmp_path, monkeypatch):
    create = running.create_detector

    def poisoned(*args, **options):
        detector = create(*args, **options)
        with torch.no_grad():
            detector.head.outputs[0].bias[0] = float("nan")
        return detector

    monkeypatch.setattr(running, "create_detector", poisoned)
    path = tmp_path / "run" / "nan_batch.pt"
    with pytest.raises(
        PyrafuseError, match=r"the loss became nan at step 1 \(epoch 1\); the batch is saved as .*nan_batch"
    ):
        train(recipe_for(shapes, tmp_path / "run", epochs=2))
    batch = read_tensors(path)
    assert batch["images"].shape[:2] == (4, 3)
    assert batch["images"].dtype == torch.uint8
    assert len(batch["indices"]) == 4
    assert batch["targets"]["boxes"].shape[::2] == (4, 4)
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_folders_of_runs_are_not_overwritten(shapes, tmp_path):
    (tmp_path / "last.ckpt").touch()
    recipe = recipe_for(shapes, tmp_path, epochs=1)
    with pytest.raises(PyrafuseError, match="holds a run already: choose another"):
        train(recipe)
    lost = replace(recipe, run=replace(recipe.run, output=str(tmp_path / "empty"), resume=True))
    with pytest.raises(PyrafuseError, match=r"nothing to resume: .*last\.ckpt is not there"):
        train(lost)
    nameless = replace(recipe, run=replace(recipe.run, output=None, resume=True))
    with pytest.raises(PyrafuseError, match="--resume needs --output RUN_DIR"):
        train(nameless)
