"""Every recipe is valid, survives YAML, and says what its authors say."""

import json
import math
from dataclasses import replace

import pytest
import yaml
from rich.console import Console
from torch.distributed.run import get_args_parser

from pyrafuse.base.spec import read_spec
from pyrafuse.cli.main import main
from pyrafuse.models.building import build
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES, SOURCES
from pyrafuse.training.run import train
from pyrafuse.training.schedule import block_sizes, lr_factor, mixed_epochs, scaled_epochs
from pyrafuse.training.settings import to_plain
from pyrafuse.training.starting import settle
from vectors import FOLDER

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


PAPER = [name for name in NAMES if SOURCES[name].paper == "arXiv:1911.09516"]
WITH_PAPER = [name for name in NAMES if SOURCES[name].paper]
COCO_IMAGES = 118_287


def test_the_paper_s_recipes_are_there():
    assert PAPER == [
        "yolov3_asff_coco",
        "yolov3_asff_mobilenetv2_coco",
        "yolov3_asff_star_coco",
        "yolov3_asff_voc",
        "yolov3_coco",
        "yolov3_voc",
    ]


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_learning_rate(name):
    recipe = RECIPES.create(name)
    official = json.loads((FOLDER / "asff/lr_schedule.json").read_text())
    batches = COCO_IMAGES / recipe.run.batch_size
    assert math.floor(batches) == official["epoch_size_used_by_formula"]
    assert math.ceil(batches) == official["iterations_per_epoch"]
    base = recipe.optimizer.lr * recipe.run.batch_size / recipe.optimizer.lr_batch
    stepped = replace(recipe.schedule, kind="step")

    def rate(epoch, step, settings=recipe.schedule):
        return base * lr_factor(settings, epoch=epoch, step=step, steps_per_epoch=batches, epochs=recipe.run.epochs)

    for epoch, expected in official["per_epoch_first_iter"].items():
        assert rate(int(epoch), 0) == pytest.approx(expected, rel=1e-12), epoch
    for place, expected in official["burn_in"].items():
        epoch, step = map(int, place.split(":"))
        assert rate(epoch, step) == pytest.approx(expected, rel=1e-12), place
    for settings in (stepped, replace(stepped, steps=())):  # the default steps are the paper's
        for epoch, expected in official["step_mode_cos_false"].items():
            last = 2365 if epoch == "4" else 0
            assert rate(int(epoch), last, settings) == pytest.approx(expected, rel=1e-12), epoch


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_last_epochs(name):
    recipe = RECIPES.create(name)
    assert mixed_epochs(recipe.schedule, epochs=301) == 272  # epoch 271 is the last with mixup
    assert scaled_epochs(recipe.schedule, epochs=301) == 291  # epoch 290 is the last with many sizes
    assert recipe.data.size == (416 if "voc" in name or "mobile" in name else 608)
    assert tuple(recipe.data.sizes) == (320, 352, 384, 416, 448, 480, 512, 544, 576, 608)


def test_asff_star_is_the_official_one():
    recipe = RECIPES.create("yolov3_asff_star_coco")
    assert [recipe.dropblock.keep_prob] * 3 == read_dropblock()["keep_prob"]
    detector = create_model(recipe.model.name, **recipe.model.options)
    manifest = json.loads((FOLDER / "asff/manifest_asff_rfb.json").read_text())
    ours = sorted(tuple(v.shape) for k, v in detector.state_dict().items() if not k.endswith("num_batches_tracked"))
    assert ours == sorted(tuple(shape) for key, shape in manifest if not key.endswith("num_batches_tracked"))


@pytest.mark.parametrize("epoch", [0, 4, 5, 6, 79, 80, 149, 150, 300])
def test_the_paper_s_dropblock(epoch):
    phases = read_dropblock()["from_epoch_block_size"]
    sizes = phases[str(max(int(first) for first in phases if int(first) <= epoch))]
    ours = block_sizes(RECIPES.create("yolov3_asff_star_coco").dropblock, epoch=epoch)
    assert ours == tuple(reversed(sizes or ()))  # theirs run coarsest first


def read_dropblock():
    return json.loads((FOLDER / "asff/dropblock_schedule.json").read_text())


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


def test_the_light_model_is_the_official_one():
    recipe, _ = settle(RECIPES.create("yolov3_asff_mobilenetv2_coco"))
    detector = build(read_spec(recipe.model.spec))
    manifest = json.loads((FOLDER / "asff/manifest_mobile_asff.json").read_text())
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
    assert yaml.safe_load((tmp_path / "run/recipe.yaml").read_text()) == to_plain(settle(recipe)[0])


def test_recipes_are_listed_with_commands_that_parse(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "40.6 AP at 608 px" in out
    assert out.count("10 GPUs x 5 images") == len(PAPER)
    for title in ("one GPU", "8 GPUs", "each of 2 machines"):
        assert out.count(f"\n  {title} ") == len(WITH_PAPER)
    lines = [line[22:].split() for line in out.splitlines() if " train --recipe " in line]
    assert len(lines) == len(NAMES) + 2 * len(WITH_PAPER)
    for program, *words in lines:
        nodes, processes = 1, 1
        if program == "torchrun":
            launched = get_args_parser().parse_args(words)
            assert (launched.module, launched.training_script) == (True, "pyrafuse")
            nodes, processes = int(launched.nnodes.partition(":")[0]), int(launched.nproc_per_node)
            words = launched.training_script_args
            assert "--output" in words  # several processes need one folder
        assert main([*words, "--print_config"]) == 0
        run = yaml.safe_load(capsys.readouterr().out)["run"]
        assert run["nodes"] == nodes
        assert run["batch_size"] % (nodes * processes * run["accumulate"]) == 0
