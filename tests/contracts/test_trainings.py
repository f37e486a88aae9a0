"""Every detector trains: under the default recipe, under its own, with every trick, and resumed."""

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from pyrafuse.cli.main import main
from pyrafuse.core.storage import read_tensors
from pyrafuse.importers.loading import load
from pyrafuse.models.factory import list_models
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.recipes.tricks import TRICKS
from pyrafuse.training import precision
from pyrafuse.training import run as running
from pyrafuse.training.settings import Recipe

IMAGES = 4
SAME_FORMS = tuple(name for name in list_models() if name[-3:] in ("_d1", "_d2", "_d3", "_d4", "_d5"))
"""Names of a form that another name has with other numbers: they are slow."""
ONE_OF_EACH = ("yolov3_asff_small", "fcos", "faster_rcnn")
QUICK_RECIPES = ("yolov3_asff_star_coco", "atss_coco", "faster_rcnn_coco", "ssd300_coco", "efficientdet_d0_coco")
QUICK_TRICKS = ("rfb", "dropblock")


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(running, "_report", lambda *_: None)
    monkeypatch.setattr(precision, "measure_speedup", lambda *_, **__: 2.0)  # auto takes bf16


def slow(names, is_slow):
    return [pytest.param(name, marks=pytest.mark.slow) if is_slow(name) else name for name in names]


def merged(options, others):
    """``others`` over ``options``, one mapping within the other."""
    both = {**options, **others}
    shared = [key for key in options if isinstance(options[key], dict) and isinstance(others.get(key), dict)]
    return both | {key: merged(options[key], others[key]) for key in shared}


def shrunk(recipe: Recipe, options, output, **run) -> Recipe:
    """``recipe`` for its model in a small form, four images, and one step of two batches an epoch."""
    options = merged(recipe.model.options, options)
    backbone = options.pop("backbone", recipe.model.backbone)
    longest = 96 if recipe.data.fit == "keep_ratio" else None
    settings = {"epochs": 1, "batch_size": IMAGES, "accumulate": 2, "precision": "auto", "evaluate_every": 1}
    return replace(
        recipe,
        model=replace(recipe.model, backbone=backbone, options=options),
        data=replace(
            recipe.data, path=f"shapes:train={IMAGES},val=1,size=64", size=64, longest=longest, sizes=(), workers=0
        ),
        run=replace(recipe.run, **settings | run, accelerator="cpu", output=str(output)),
    )


def check_trained(recipe: Recipe, result: running.TrainingResult, *, steps: int) -> dict:
    """One step an epoch was made in bf16, numbers stayed finite, and what was saved loads; returns the checkpoint."""
    saved = read_tensors(result.last)
    assert saved["global_step"] == steps
    assert saved["precision"] == "bf16"
    live = saved.get("current_model_state", saved["state_dict"])
    assert ("current_model_state" in saved) == bool(recipe.run.ema)
    assert live.keys() == saved["state_dict"].keys()
    for state in (live, saved["state_dict"]):
        assert all(value.isfinite().all() for value in state.values())
    assert 0 <= result.evaluation.ap <= 1
    loaded = load(result.last).state_dict()
    assert all(torch.equal(value, saved["state_dict"][f"detector.{key}"]) for key, value in loaded.items())
    return saved


def train(recipe: Recipe) -> running.TrainingResult:
    return running.train(recipe, console=Console(quiet=True))


@pytest.mark.parametrize("name", slow(list_models(), lambda name: name in SAME_FORMS))
def test_the_default_recipe(name, small_options, tmp_path):
    recipe = shrunk(RECIPES.create("small"), small_options(name), tmp_path / "run")
    recipe = replace(recipe, model=replace(recipe.model, name=name))
    assert recipe.run.ema > 0
    check_trained(recipe, train(recipe), steps=1)


@pytest.mark.parametrize("name", slow(list_models(), lambda name: name not in ONE_OF_EACH))
def test_it_goes_on(name, small_options, tmp_path):
    recipe = shrunk(RECIPES.create("small"), small_options(name), tmp_path / "run")
    recipe = replace(recipe, model=replace(recipe.model, name=name))
    first = check_trained(recipe, train(recipe), steps=1)
    further = replace(recipe, run=replace(recipe.run, epochs=2, resume=True))
    second = check_trained(further, train(further), steps=2)
    moved = [key for key, value in second["state_dict"].items() if not torch.equal(value, first["state_dict"][key])]
    assert any(key.startswith("detector.backbone.") for key in moved)
    # after two steps the averages are no longer the weights
    assert any(not torch.equal(v, second["current_model_state"][k]) for k, v in second["state_dict"].items())


OWN = [name for name in RECIPES.names() if name != "small"]


@pytest.mark.parametrize("name", slow(OWN, lambda name: name not in QUICK_RECIPES))
def test_its_own_recipe(name, small_options, tmp_path):
    recipe = RECIPES.create(name)
    options = {**small_options(recipe.model.name)}
    if recipe.model.neck:
        options["necks"] = {recipe.model.neck[0]: options["necks"]["fpn"]}
    if recipe.model.backbone == "mobilenet_v2":
        options["backbone"] = {}
    if name == "ssdlite320_coco":
        options = {"backbone": {"width": 0.25}, "necks": options["necks"]}
    recipe = shrunk(recipe, options, tmp_path / "run", precision="bf16")
    check_trained(recipe, train(recipe), steps=1)


@pytest.mark.parametrize("trick", slow(TRICKS, lambda trick: trick not in QUICK_TRICKS))
@pytest.mark.parametrize("word", ["--with", pytest.param("--without", marks=pytest.mark.slow)])
def test_the_default_recipe_with_each_trick(word, trick, small_options, tmp_path):
    options = {**small_options("yolov3_asff"), "head": {"adaption": False}}
    words = ["--model", "yolov3_asff", "--size", "64", "--epochs", "1", "--batch", "2", "--data.workers", "0"]
    words += ["--run.accelerator", "cpu", "--output", str(tmp_path / "run"), "--model.options", json.dumps(options)]
    assert main(["train", "shapes:train=2,val=1,size=64", *words, word, trick]) == 0
    saved = read_tensors(tmp_path / "run/last.ckpt")
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
