"""How long each run is: epochs as they are given, or as minutes allow the slowest."""

from dataclasses import replace

import pytest

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.data.formats.layout import read_splits
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.experiments.budget import check_models, count_steps, epochs_within, set_budget, settle_precision
from pyrafuse.training.settings import DataSettings, ModelSettings, Recipe, RunSettings

TINY = {
    "backbone": {"width": 0.25, "depths": (1, 1, 1, 1, 1)},
    "necks": {"yolo_fpn": {"width": 1 / 8}, "asff": {"out_channels": (16, 24, 32)}},
    "head": {"adaption": False},
}
BASE = Recipe(
    model=ModelSettings(name="yolov3_asff", options=TINY),
    data=DataSettings(size=64, workers=0),
    run=RunSettings(epochs=7, batch_size=4),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_shapes(tmp_path_factory.mktemp("shapes"), num_train=6, num_val=2, size=64)
    return read_splits(folder, val_fraction=0.2, seed=0)


def test_steps():
    assert count_steps(BASE, 8) == 2
    assert count_steps(BASE, 9) == 3
    assert count_steps(replace(BASE, run=replace(BASE.run, accumulate=2)), 9) == 5


def test_the_slowest_sets_the_epochs_of_all():
    steps, seconds = {"a": 30, "b": 30}, {"a": 0.5, "b": 2.0}  # an epoch of b takes a minute
    assert epochs_within(5.9, steps=steps, seconds=seconds) == 5
    assert epochs_within(1, steps=steps, seconds=seconds) == 1
    with pytest.raises(PyrafuseError, match=r"one epoch of 'b' takes about 1\.0 minutes here, and a run may take 0\.5"):
        epochs_within(0.5, steps=steps, seconds=seconds)


def test_epochs_as_given_and_as_they_were_set_before(data):
    assert set_budget({"a": BASE}, data, accelerator="cpu").epochs == 7
    again = set_budget({"a": BASE}, data, epochs=3, minutes=1.0, accelerator="cpu")
    assert (again.epochs, again.steps, again.seconds) == (3, {"a": 2}, {})


def test_one_precision_for_all_that_leave_it_open(data, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pyrafuse.experiments.budget.choose_precision", lambda run, *_, **__: asked.append(run.accelerator) or "bf16"
    )
    given = replace(BASE, run=replace(BASE.run, precision="32"), optimizer=replace(BASE.optimizer, lr=0.25))
    hot = replace(BASE, optimizer=replace(BASE.optimizer, lr=0.5))
    recipes = {"own": given, "a": BASE, "b": hot}
    settled, precision = settle_precision(recipes, data, accelerator="cpu", say=asked.append)
    assert precision == "bf16"
    assert {name: recipe.run.precision for name, recipe in settled.items()} == {"own": "32", "a": "bf16", "b": "bf16"}
    assert settled["b"].optimizer.lr == 0.5
    assert asked == ["cpu"]
    again, kept = settle_precision(recipes, data, accelerator="cpu", settled="32", say=asked.append)
    assert ({recipe.run.precision for recipe in again.values()}, kept, asked) == ({"32"}, "32", ["cpu"])
    assert settle_precision({"own": given}, data, accelerator="cpu", say=asked.append) == ({"own": given}, None)


def test_minutes_are_measured_by_real_steps(data):
    recipes, precision = settle_precision({"a": BASE}, data, accelerator="cpu", say=lambda _: None)
    assert precision in ("32", "bf16")
    budget = set_budget(recipes, data, minutes=60, accelerator="cpu", threads=1)
    assert 0 < budget.seconds["a"] < 60
    assert budget.epochs == int(3600 / (2 * budget.seconds["a"]))


def test_what_cannot_be_built_is_said_before_anything_is_trained(data):
    wrong = replace(BASE, model=replace(BASE.model, options={**TINY, "head": {"anchor": 3}}))
    with pytest.raises(
        PyrafuseError, match=r"variant 'wrong': the head yolov3 takes no option 'anchor'; did you mean 'anchors'"
    ):
        check_models({"fine": BASE, "wrong": wrong}, [data])
