"""Short forms of `pyrafuse train` become the recipe that they stand for."""

import functools

import pytest
import yaml

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.arguments import call
from pyrafuse.cli.train import train
from pyrafuse.recipes.registry import RECIPES
from pyrafuse.training.settings import Recipe, to_plain


def parse(*argv: str) -> Recipe:
    """The recipe that `pyrafuse train` would run."""
    seen = []

    @functools.wraps(train)
    def remember(recipe: Recipe) -> int:
        seen.append(recipe)
        return 0

    assert call(remember, argv, prog="pyrafuse train") == 0
    (recipe,) = seen
    return recipe


def test_without_words_it_is_the_small_recipe():
    assert parse() == RECIPES.create("small")


@pytest.mark.parametrize(
    ("argv", "path", "expected"),
    [
        (["photos"], "data.path", "photos"),
        (["--data", "photos"], "data.path", "photos"),
        (["--data=photos"], "data.path", "photos"),
        (["--data.path", "photos"], "data.path", "photos"),
        (["--model", "yolov3"], "model.name", "yolov3"),
        (["--size", "320"], "data.size", 320),
        (["--epochs=3"], "run.epochs", 3),
        (["--batch", "8"], "run.batch_size", 8),
        (["--lr", "0.5"], "optimizer.lr", 0.5),
        (["--weights", "w.pth"], "model.backbone_weights", "w.pth"),
        (["--output", "runs/x"], "run.output", "runs/x"),
        (["--seed", "7"], "run.seed", 7),
        (["--run.sync-bn", "false"], "run.sync_bn", False),
        (["--no-run.sync-bn"], "run.sync_bn", False),
        (["--no-resume"], "run.resume", False),
        (["--device", "cpu"], "run.accelerator", "cpu"),
        (["--device", "gpu"], "run.devices", "auto"),
        (["--device", "0,1"], "run.devices", (0, 1)),
        (["--device", "cuda:1"], "run.devices", (1,)),
        (["--run.devices", "2"], "run.devices", 2),
        (["--data.sizes", "64,96"], "data.sizes", (64, 96)),
        (["--model.options.head", "{reach: 1.0}"], "model.options", {"head": {"reach": 1.0}}),
        (["--recipe", "yolov3_coco", "--data", "coco"], "schedule.hold_epochs", 20.0),
        (["--size", "320", "--recipe", "yolov3_coco"], "data.size", 320),  # whatever comes first, the recipe is changed
    ],
)
def test_a_short_form_is_the_option_it_stands_for(argv, path, expected):
    value = parse(*argv)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


def test_numbers_of_devices_mean_gpus():
    assert parse("--device", "0,1").run.accelerator == "gpu"


def test_a_recipe_s_file_is_changed_by_options(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("run:\n  epochs: 5\n  seed: 4\n")
    recipe = parse("--recipe", str(file), "--epochs", "6", "photos")
    assert (recipe.run.epochs, recipe.run.seed, recipe.data.path) == (6, 4, "photos")
    assert parse("--config", str(file)).run.epochs == 5


def test_a_resumed_run_brings_its_own_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(to_plain(RECIPES.create("shapes_demo")), sort_keys=False))
    recipe = parse("--resume", "--output", str(tmp_path), "--epochs", "99")
    assert (recipe.data.size, recipe.run.epochs, recipe.run.resume) == (256, 99, True)
    assert recipe.run.output == str(tmp_path)
    assert recipe.model == parse("--recipe", "shapes_demo").model


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "b"], "unexpected 'b'"),
        (["data=a"], "unexpected 'data=a'; did you mean --data a?"),
        (["a", "epochs=3"], "unexpected 'epochs=3'; did you mean --epochs 3?"),
        (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["--batch_size", "3"], "unknown option --batch_size; did you mean --batch?"),
        (["--batch-size", "3"], "unknown option --batch_size; did you mean --batch?"),
        (["--imgsz", "640"], "unknown option --imgsz; did you mean --size?"),
        (["--lr0=0.1"], "unknown option --lr0; did you mean --lr?"),
        (["--workers", "2"], "unknown option --workers; did you mean --data.workers?"),
        (["--pretrained", "a.pt"], "unknown option --pretrained; did you mean --weights?"),
        (["--pretrained"], "unknown option --pretrained; did you mean --weights?"),
        (["a", "pretrained=True"], "unexpected 'pretrained=True'; did you mean --weights?"),
        (["--checkpoint", "a.pt"], "unknown option --checkpoint; did you mean --weights?"),
        (["--ckpt=a.pt"], "unknown option --ckpt; did you mean --weights?"),
        (["--start-from", "a.ckpt"], "unknown option --start_from; did you mean --weights?"),
        (["--finetune", "a.ckpt"], "unknown option --finetune; did you mean --weights?"),
        (["--pretrained-backbone", "a.pth"], "unknown option --pretrained_backbone; did you mean --weights?"),
        (["--resume-from", "runs/a"], "unknown option --resume_from; did you mean --resume?"),
        (["--backbone", "resnet18"], "unknown option --backbone; did you mean --model.backbone?"),
        (["--gpu", "0"], "unknown option --gpu; did you mean --device?"),
        (["--optimizer", "adamw"], "no YAML file; the options are --optimizer.name"),
        (["--patience", "3"], "unknown option --patience; did you mean --run.patience?"),
        (["--amp"], "unknown option --amp; did you mean --run.precision?"),
        (["--work-dir", "a"], "unknown option --work_dir; did you mean --output?"),
        (["a", "imgsz=640"], "unexpected 'imgsz=640'; did you mean --size 640?"),
        (["a", "batch=8"], "unexpected 'batch=8'; did you mean --batch 8?"),
        (["--epochs", "many"], "--run.epochs: expected int, got 'many'"),
        (["--epochs"], "--run.epochs needs a value"),
        (["--device", "tpu"], "no device 'tpu'; choose cpu, gpu, or the numbers of GPUs"),
        (["--device"], "--device needs a value"),
        (["--recipe", "smal"], "unknown recipe 'smal'; did you mean 'small'?"),
        (["--recipe", "none.yaml"], "no such file: "),
        (["--size", "100"], "data.size must be a multiple of 32, got 100; give 96 or 128"),
        (["--resume"], "--resume needs --output RUN_DIR: no run folder was given"),
        (["--resume", "--output", "nowhere"], "nothing to resume: nowhere/recipe.yaml is not there"),
        (["--optimizer.name", "adm"], "--optimizer.name: 'adm' is not one of sgd, adamw"),
    ],
)
def test_what_does_not_fit_is_named(argv, message):
    with pytest.raises(PyrafuseError) as raised:
        parse(*argv)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {name: [\n", " is no YAML: "),
        ("run:\n  epoks: 3\n", ": there is no setting run.epoks; did you mean run.epochs?"),
        ("runn:\n  epochs: 3\n", ": there is no setting runn.epochs; did you mean run.epochs?"),
        ("soup: 3\n", ": there is no setting soup; `pyrafuse train --help` lists all"),
        ("- a\n", " holds no settings of a recipe, such as "),
    ],
)
@pytest.mark.parametrize("tricks", [[], ["--with", "mixup"]])
def test_a_broken_recipe_is_named_by_its_file(text, message, tricks, tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(PyrafuseError) as raised:
        parse("--recipe", str(file), *tricks)
    assert f"{file}{message}" in str(raised.value)


def test_a_recipe_may_say_little(tmp_path):
    file = tmp_path / "little.yaml"
    file.write_text("run.epochs: 5\nmodel:\n  options:\n    head: {adaption: false}\naugmentation: {}\n")
    recipe = parse("--recipe", str(file))
    assert (recipe.run.epochs, recipe.model.options) == (5, {"head": {"adaption": False}})


def test_an_option_of_the_model_by_its_dotted_name_leaves_the_others():
    name = "--model.options.criterion.level_weights.schedule"
    recipe = parse("--recipe", "atss_level_weights_rising_coco", name, "[1,3]", "--with", "mixup")
    assert recipe.model.options == {
        "backbone": {"frozen_stages": 1, "norm_eval": True},
        "criterion": {"level_weights": {"name": "scheduled", "schedule": [1, 3]}},
    }
    assert recipe.augmentation.mixup_probability == 1
    recipe = parse("photos", "--model.options.head.rfb=true", "--model.options.necks.asff.a", "b")
    assert recipe.model.options == {"head": {"rfb": True}, "necks": {"asff": {"a": "b"}}}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model.options.a.b"], "--model.options.a.b needs a value"),
        (["--model.options.a.b", "[1"], "--model.options.a.b [1: the value is no YAML"),
    ],
)
def test_an_option_of_the_model_without_a_value(argv, message):
    with pytest.raises(PyrafuseError) as raised:
        parse(*argv)
    assert message in str(raised.value)


def test_help_shows_the_short_forms(capsys):
    assert call(train, ["--help"], prog="pyrafuse train") == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: pyrafuse train [DATA] [--recipe NAME]")
    assert "  --data PATH " in text
    assert "--data CONFIG" not in text
    assert "Passes over the training images. (type: int, default: 30)" in " ".join(text.split())


def test_what_is_printed_is_the_whole_recipe(capsys):
    assert call(train, ["photos", "--size", "320", "--print_config"], prog="pyrafuse train") == 0
    values = yaml.safe_load(capsys.readouterr().out)
    expected = to_plain(RECIPES.create("small"))
    expected["data"] |= {"path": "photos", "size": 320}
    assert values == expected


def test_a_word_may_be_left_out():
    seen = []

    def function(model: str, data: str | None = None, /, *, score: float = 0.5) -> int:
        """Measure.

        Args:
            model: A checkpoint.
            data: With what.
            score: Least score.
        """
        seen.append((model, data, score))
        return 0

    assert call(function, ["m"], prog="t") == 0
    assert call(function, ["m", "d", "--score", "1"], prog="t") == 0
    assert seen == [("m", None, 0.5), ("m", "d", 1.0)]


@pytest.mark.parametrize("named", ["", "last.ckpt"])
def test_a_run_that_is_named_without_its_option(tmp_path, named):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(PyrafuseError) as raised:
        parse("--resume", str(tmp_path / named))
    assert str(raised.value).endswith(f"no run folder was given; did you mean --resume --output {tmp_path}?")
