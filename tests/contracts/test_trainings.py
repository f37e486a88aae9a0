"""Every detector trains: under the default recipe, under its own, with every trick, and resumed."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from pyrafuse.core.storage import read_tensors
from pyrafuse.models.checkpoint import load
from pyrafuse.models.factory import list_models
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.training import run as running
from pyrafuse.training.settings import Recipe

IMAGES = 4
SAME_FORMS = tuple(name for name in list_models() if name[-3:] in ("_d1", "_d2", "_d3", "_d4", "_d5"))
"""Names of a form that another name has with other numbers: they are slow."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(running, "draw_run", lambda *_: None)


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
    settings = {"epochs": 1, "batch_size": IMAGES, "accumulate": 2, "precision": "bf16", "evaluate_every": 1}
    return replace(
        recipe,
        model=replace(recipe.model, backbone=backbone, options=options),
        data=replace(
            recipe.data, path=f"shapes:train={IMAGES},val=1,size=64", size=64, longest=longest, sizes=(), workers=0
        ),
        run=replace(recipe.run, **settings | run, accelerator="cpu", output=str(output)),
    )


def check_trained(recipe: Recipe, result: running.TrainingResult, *, steps: int) -> dict:
    """One step an epoch was made, weights moved and stayed finite, and what was saved loads; returns the checkpoint."""
    saved = read_tensors(result.last)
    assert saved["global_step"] == steps
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
