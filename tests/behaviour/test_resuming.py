"""Runs that go on, or are refused without a trace: cut-off validations, other options, other classes, two at a time."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.locking import hold_folder
from pyrafuse.core.storage import read_tensors
from pyrafuse.data.augment.settings import Augmentation
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.training import loop
from pyrafuse.training import run as running
from pyrafuse.training.settings import DataSettings, ModelSettings, Recipe, RunSettings, to_plain
from pyrafuse.training.starting import settle
from pyrafuse.training.step import TrainingStep

MODEL = ModelSettings("yolov3_small", options={"backbone": {"width": 0.25}})
TINY = ModelSettings(
    "yolov3_small",
    options={"backbone": {"width": 0.125}, "necks": {"fpn": {"out_channels": 8}}, "head": {"branches": 8}},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data") / "shapes", num_train=4, num_val=2, size=64)


def recipe_for(data: Path, output: Path, **run) -> Recipe:
    given = {"epochs": 2, "batch_size": 4, "evaluate_every": 1, "precision": "32", "accelerator": "cpu", **run}
    return Recipe(MODEL, DataSettings(path=str(data), size=64, workers=0), run=RunSettings(output=str(output), **given))


def train(recipe: Recipe) -> tuple[running.TrainingResult, str]:
    stream = io.StringIO()
    return running.train(recipe, console=Console(file=stream, width=300)), stream.getvalue()


def resumed(recipe: Recipe, **run) -> Recipe:
    return replace(recipe, run=replace(recipe.run, resume=True, **run))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A complete run of two epochs."""
    return train(recipe_for(data, tmp_path_factory.mktemp("runs") / "whole"))[0].folder


class Killed(Exception):  # noqa: N818
    """What ends a validation."""


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_validation_that_was_cut_off_is_made_up(data, whole, tmp_path, monkeypatch, epoch):
    validate = loop.validate
    validated = []

    def stop(*args, **options):
        if len(validated) == epoch:
            raise Killed
        validated.append(validate(*args, **options))
        return validated[-1]

    recipe = recipe_for(data, tmp_path / "run")
    monkeypatch.setattr(loop, "validate", stop)
    with pytest.raises(Killed):
        train(recipe)
    monkeypatch.undo()
    last = read_tensors(tmp_path / "run/last.ckpt")
    assert last["epoch"] == epoch  # what was trained is kept
    assert not (tmp_path / "run/results.json").exists()
    train(resumed(recipe))
    for name in ("metrics.csv", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text(), name
    assert read_tensors(tmp_path / "run/last.ckpt")["due"] is None


class Shaken(TrainingStep):
    """A step that draws from the random numbers of the training."""

    def forward(self, batch):
        values = super().forward(batch)
        return values | {"train/loss": values["train/loss"] * (1 + torch.rand(()))}


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_an_epoch_goes_on_where_it_was_saved(tmp_path, monkeypatch, workers):
    """Two batches a step, averaged weights, mosaic and a new size after ten batches: each number is the same."""

    def recipe_of(folder: str, **run) -> Recipe:
        given = {"epochs": 1, "batch_size": 4, "accumulate": 2, "precision": "32"}
        data = DataSettings(path="shapes:train=24,val=2,size=64", size=64, sizes=(64, 96), workers=workers)
        run = RunSettings(output=str(tmp_path / folder), accelerator="cpu", **given, **run)
        return Recipe(TINY, data, augmentation=Augmentation(mosaic_probability=0.5), run=run)

    def stop(self, epoch, step, loss):
        if step == 12:
            raise Killed

    monkeypatch.setattr(loop, "TrainingStep", Shaken)
    train(recipe_of("whole"))
    recipe = recipe_of("run", checkpoint_minutes=1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Narrator, "tell_step", stop)
        with pytest.raises(Killed):
            train(recipe)
    cut = read_tensors(tmp_path / "run/last.ckpt")
    assert (cut["epoch"], cut["epoch_steps"], cut["global_step"]) == (-1, 5, 5)
    assert "resumed after 0 epochs and 5 steps of the next" in train(resumed(recipe))[1]
    ended, undisturbed = (read_tensors(tmp_path / name / "last.ckpt") for name in ("run", "whole"))
    assert ended["epoch_steps"] == 0
    for content in (ended, undisturbed):
        del content["pyrafuse"], content["best_evaluation"], content["precision"]  # texts, compared below
    torch.testing.assert_close(ended, undisturbed, rtol=0, atol=0)
    for name in ("metrics.csv", "results.json"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text(), name


def test_a_signal_is_heeded_after_the_step(tmp_path, monkeypatch):
    """The first one saves between two steps, also in an epoch's last; then it ends the command as it would have."""
    tell_step = loop.Narrator.tell_step

    def press(self, epoch, step, loss):
        tell_step(self, epoch, step, loss)
        if step == at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Narrator, "tell_step", press)
    handler = signal.getsignal(signal.SIGINT)
    recipe = recipe_for(Path("shapes:train=12,val=2,size=64"), tmp_path / "run", accumulate=2, epochs=3)
    recipe = replace(recipe, model=TINY)
    at = 3
    with pytest.raises(KeyboardInterrupt, match="0 of 3 epochs and 2 steps of the next are saved in"):
        train(recipe)
    at = 6
    with pytest.raises(KeyboardInterrupt, match="0 of 3 epochs and 3 steps of the next are saved in"):
        train(resumed(recipe))
    at = 1
    with pytest.raises(KeyboardInterrupt, match="1 of 3 epochs and 1 step of the next are saved in"):
        train(resumed(recipe))
    with pytest.raises(PyrafuseError, match=r"1 epoch and 1 step of the next behind it, and run.epochs is 1: give --"):
        train(resumed(recipe, epochs=1))
    assert signal.getsignal(signal.SIGINT) is handler
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 2


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    def press(self, epoch, step, loss):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Narrator, "tell_step", press)
    with pytest.raises(KeyboardInterrupt, match="no step was saved, there is nothing to resume"):
        train(recipe_for(Path("shapes:train=4,val=2,size=64"), tmp_path / "run"))


def test_a_complete_run_says_so_and_only_makes_up_its_report(data, whole):
    before = content_of(whole)
    result, said = train(resumed(recipe_for(data, whole)))
    assert "is already complete: all 2 epochs are trained; --epochs 4, say, for more" in said
    assert content_of(whole) == before
    (whole / "results.json").unlink()
    train(resumed(recipe_for(data, whole)))
    assert (whole / "results.json").read_bytes() == before["results.json"]
    assert result.evaluation.to_dict() == json.loads(before["results.json"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": {"seed": 3}}, r"here another one is wanted: run.seed 0 -> 3. Drop what differs"),
        ({"run": {"batch_size": 2}}, r"run.batch_size 4 -> 2"),
        ({"run": {"epochs": 1}}, r"has 2 epochs behind it, and run.epochs is 1: give --epochs 2 or more"),
        ({"data": {"size": 96}}, r"data.size 64 -> 96"),
        ({"optimizer": {"lr": 0.5}}, r"optimizer.lr 0.01 -> 0.5"),
        ({"model": {"name": "yolov3_asff_small"}}, r"model.name yolov3_small -> yolov3_asff_small"),
        ({"model": {"options": {"backbone": {"width": 0.5}}}}, r"width 0.25 -> 0.5"),
    ],
)
def test_options_that_make_it_another_run_are_refused_and_nothing_is_touched(data, whole, change, said):
    before = content_of(whole)
    recipe = resumed(recipe_for(data, whole, epochs=4))
    for group, values in change.items():
        recipe = replace(recipe, **{group: replace(getattr(recipe, group), **values)})
    with pytest.raises(PyrafuseError, match=said):
        train(recipe)
    assert content_of(whole) == before


def with_classes(data: Path, folder: Path, change) -> Path:
    shutil.copytree(data, folder)
    for path in folder.glob("instances_*.json"):
        content = json.loads(path.read_text())
        content["categories"] = change(content["categories"])
        path.write_text(json.dumps(content))
    return folder


def test_a_class_more_is_refused_with_both_lists(data, whole, tmp_path):
    other = with_classes(data, tmp_path / "other", lambda classes: [*classes, {"id": 99, "name": "ring"}])
    before = content_of(whole)
    with pytest.raises(PyrafuseError, match=r"now has 1 class \(ring\).*learns 5 classes \(circle, .*6 classes"):
        train(resumed(recipe_for(other, whole, epochs=3)))
    assert content_of(whole) == before


def test_classes_in_another_order_are_matched_by_name_and_more_epochs_are_said(data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "same")
    shutil.copytree(whole, tmp_path / "turned")

    def turn(classes):
        return [{**other, "id": own["id"]} for own, other in zip(classes, reversed(classes), strict=True)]

    other = with_classes(data, tmp_path / "other", turn)
    classes = [entry["id"] for entry in json.loads((data / "instances_train.json").read_text())["categories"]]
    ids = dict(zip(classes, reversed(classes), strict=True))
    for path in other.glob("instances_*.json"):
        content = json.loads(path.read_text())
        content["annotations"] = [{**a, "category_id": ids[a["category_id"]]} for a in content["annotations"]]
        path.write_text(json.dumps(content))
    _, said = train(resumed(recipe_for(data, tmp_path / "same", epochs=3)))
    assert "resumed after 2 epochs; otherwise than it began: run.epochs 2 -> 3" in said
    train(resumed(recipe_for(other, tmp_path / "turned", epochs=3)))
    same, turned = (read_tensors(tmp_path / name / "last.ckpt")["state_dict"] for name in ("same", "turned"))
    assert all((value == turned[key]).all() for key, value in same.items())


def test_a_folder_in_use_or_with_a_best_checkpoint_alone_is_refused(data, whole, tmp_path):
    with hold_folder(tmp_path / "run"):
        code = f"from pyrafuse.base.locking import hold_folder\nwith hold_folder({str(tmp_path / 'run')!r}): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is in use: another process writes its results there" in done.stderr
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    shutil.copy(whole / "best.ckpt", tmp_path / "run")
    with pytest.raises(PyrafuseError, match=r"holds a best.ckpt, and no last.ckpt to go on from: choose another"):
        train(recipe_for(data, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best.ckpt"]


def test_a_killed_process_leaves_no_lock_and_its_half_written_files_are_removed(tmp_path):
    code = (
        "import os, signal\nfrom pyrafuse.base.locking import hold_folder\n"
        "from pyrafuse.base.writing import write_atomically\n"
        f"with hold_folder({str(tmp_path)!r}), write_atomically({str(tmp_path / 'last.ckpt')!r}) as stream:\n"
        "    stream.write(b'half')\n    stream.flush()\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (tmp_path / ".mine.part").touch()
    (tmp_path / f".other.{os.getppid()}.part").touch()  # of a process that runs
    elsewhere = tmp_path / ".last.ckpt.x.0badcafe-4194305.part"  # of another machine, and no process of this one
    elsewhere.mkdir()
    (elsewhere / "half").touch()
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(".last.ckpt.")]) == 2
    with hold_folder(tmp_path):
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {".pyrafuse.lock", ".mine.part", f".other.{os.getppid()}.part", elsewhere.name}
    for each, days in ((elsewhere, 2), (elsewhere / "half", 0.9)):
        os.utime(each, (time.time() - 86400 * days,) * 2)
    with hold_folder(tmp_path):
        assert elsewhere.is_dir()
    os.utime(elsewhere / "half", (time.time() - 86400 * 1.1,) * 2)
    with hold_folder(tmp_path):
        assert not elsewhere.exists()


def test_what_is_written_into_a_recipe_is_what_was_asked(data, whole):
    asked = to_plain(settle(recipe_for(data, whole))[0])
    assert read_tensors(whole / "last.ckpt")["pyrafuse"]["recipe"] == asked
