"""Every recipe is valid, survives YAML, and says what its authors say."""

import json
from dataclasses import replace

import pytest
import yaml
from rich.console import Console

from pyrafuse.cli.main import main
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES, SOURCES
from pyrafuse.training.run import train
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import to_plain

NAMES = RECIPES.names()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_yaml_and_the_command_line(name, tmp_path, capsys):
    values = to_plain(RECIPES.create(name))
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    for given in (str(file), name):
        assert main(["train", "--recipe", given, "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out) == values


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_a_source_and_a_sentence(name):
    assert (RECIPES.get(name).__doc__ or "").strip()
    assert name in SOURCES


@pytest.mark.parametrize("name", ["yolov3_coco", "yolov3_asff_coco", "yolov3_asff_mobilenetv2_coco"])
def test_the_paper_s_learning_rate(name, shared_dir):
    recipe = RECIPES.create(name)
    official = json.loads((shared_dir / "reference/asff/lr_schedule.json").read_text())
    steps = official["iterations_per_epoch"]
    base = recipe.optimizer.lr * recipe.run.batch_size / recipe.optimizer.lr_batch
    for epoch, rate in official["per_epoch_first_iter"].items():
        if int(epoch) >= 5:
            factor = lr_factor(recipe.schedule, epoch=int(epoch), step=0, steps_per_epoch=steps, epochs=301)
            assert base * factor == pytest.approx(rate, rel=1e-9), epoch
    for place, rate in official["burn_in"].items():
        epoch, step = map(int, place.split(":"))
        factor = lr_factor(recipe.schedule, epoch=epoch, step=step, steps_per_epoch=steps, epochs=301)
        # the original counts one step too few an epoch
        assert base * factor == pytest.approx(rate, rel=5e-3, abs=1e-9), place


def test_the_paper_s_settings():
    recipe = RECIPES.create("yolov3_asff_coco")
    assert (recipe.run.epochs, recipe.run.batch_size, recipe.run.ema) == (301, 50, 0)
    assert (recipe.optimizer.weight_decay, recipe.optimizer.decay_all, recipe.optimizer.clip_norm) == (5e-4, True, 0)
    assert (recipe.data.size, recipe.data.sizes[0], recipe.data.sizes[-1], len(recipe.data.sizes)) == (
        608,
        320,
        608,
        10,
    )
    assert recipe.augmentation.mixup_probability == 1


def test_the_light_model_is_the_official_one(shared_dir):
    settings = RECIPES.create("yolov3_asff_mobilenetv2_coco").model
    detector = create_model(settings.name, backbone=settings.backbone, **settings.options)
    manifest = json.loads((shared_dir / "reference/asff/manifest_mobile_asff.json").read_text())
    ours = sorted(tuple(v.shape) for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked"))
    theirs = sorted(tuple(shape) for key, shape in manifest if not key.endswith("num_batches_tracked"))
    assert ours == theirs


def test_the_demo_runs_two_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    recipe = RECIPES.create("shapes_demo")
    recipe = replace(
        recipe,
        data=replace(recipe.data, path="shapes:train=8,val=2,size=64", size=64, workers=0),
        run=replace(recipe.run, epochs=2, batch_size=8, output=str(tmp_path / "run"), accelerator="cpu"),
    )
    result = train(recipe, console=Console(quiet=True))
    assert result.best.is_file()
    assert result.last.is_file()
    assert 0 <= result.evaluation.ap <= 1
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text()) == to_plain(recipe)


def test_recipes_are_listed_with_commands_that_parse(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "40.6 AP at 608 px" in out
    commands = [line.partition("pyrafuse ")[2] for line in out.splitlines() if line.startswith("  one device")]
    assert len(commands) == len(NAMES)
    for command in commands:
        assert main([*command.split(), "--print_config"]) == 0
