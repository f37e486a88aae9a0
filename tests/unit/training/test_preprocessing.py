"""The recipe's preprocessing: what decides each value, what is refused, and what a run writes down."""

import shutil
from dataclasses import asdict, fields, replace
from math import nan

import pytest
import torch
import yaml

from pyrafuse.backbones.inputs import find_input
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.training.preprocessing import PreprocessingSettings
from pyrafuse.training.settings import DataSettings, ModelSettings, Recipe, RunSettings
from pyrafuse.training.starting import choose_preprocessing, of_preprocessing, settle

ODD = Preprocessing(
    size=(96, 96), fit="letterbox", interpolation="opencv", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), bgr=True,
    padding="black", pad_multiple=64, round_down=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def odd_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("odd") / "odd.ckpt"
    detector = create_model("yolov3_small", num_classes=1)
    detector.card = replace(detector.card, names=("ant",), category_ids=(1,), preprocessing=ODD)
    save(detector, path)
    return str(path)


def test_a_section_has_every_field_but_size_and_fit():
    own = {field.name for field in fields(PreprocessingSettings)}
    assert own == {field.name for field in fields(Preprocessing)} - {"size", "fit"}
    assert of_preprocessing(ODD) == PreprocessingSettings(
        (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), True, "opencv", "black", 64, True
    )


def test_nothing_is_given_and_nothing_known():
    settled, _ = settle(Recipe())
    assert settled.preprocessing == of_preprocessing(Preprocessing())
    assert None not in asdict(settled.preprocessing).values()


@pytest.mark.parametrize(
    "weights", ["torchvision/resnet18", "timm/tf_efficientnet_b0.ap_in1k", "resnet50_msra-5891d200.pth"]
)
def test_it_is_that_of_the_pretrained_backbone(weights):
    recipe = Recipe(model=ModelSettings(name="retinanet", backbone="resnet18", backbone_weights=weights))
    settled, _ = settle(recipe)
    known = find_input(weights)
    assert known is not None
    assert settled.preprocessing == of_preprocessing(known)
    assert (settled.data.size, settled.data.fit) == (416, "stretch")
    other = replace(recipe, preprocessing=PreprocessingSettings(bgr=not known.bgr))
    assert settle(other)[0].preprocessing == replace(of_preprocessing(known), bgr=not known.bgr)


def test_it_is_that_of_the_checkpoint_before_that_of_the_backbone(odd_checkpoint):
    model = ModelSettings(start_from=odd_checkpoint, backbone_weights="timm/tf_efficientnet_b0.ap_in1k")
    settled, start = settle(Recipe(model=model))
    assert start is not None
    assert settled.preprocessing == of_preprocessing(ODD)
    assert choose_preprocessing(settled, start.card.preprocessing) == ODD
    assert settle(settled)[0] == settled


def test_each_value_can_be_given_alone(odd_checkpoint):
    for field in fields(PreprocessingSettings):
        value = getattr(Preprocessing(), field.name)
        assert value != getattr(ODD, field.name)
        recipe = Recipe(
            model=ModelSettings(start_from=odd_checkpoint), preprocessing=PreprocessingSettings(**{field.name: value})
        )
        settled, start = settle(recipe)
        assert start is not None
        assert choose_preprocessing(settled, start.card.preprocessing) == replace(ODD, **{field.name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"std": (0.2, 0.0, 0.2)},
            r"preprocessing\.std must be three numbers above 0 and at most 1, .*got \[0\.2, 0",
        ),
        ({"std": (0.2, nan, 0.2)}, r"preprocessing\.std must be .*got \[0\.2, nan, 0\.2\]$"),
        ({"std": (-0.2, 0.2, 0.2)}, r"preprocessing\.std must be"),
        ({"mean": (0.5, 0.5)}, r"preprocessing\.mean must be three numbers in 0\.\.1, of red, green and blue; got \[0"),
        ({"mean": (nan, 0.5, 0.5)}, r"preprocessing\.mean must be .*got \[nan, 0\.5, 0\.5\]$"),
        ({"mean": (123.675, 116.28, 103.53)}, r"; as shares of 255 these are \[0\.485, 0\.456, 0\.406\]$"),
        ({"std": (58.395, 57.12, 57.375)}, r"; as shares of 255 these are \[0\.229, 0\.224, 0\.225\]$"),
        ({"interpolation": "cubic"}, r"preprocessing\.interpolation must be antialias, bicubic or opencv, got 'cubic'"),
        ({"padding": "grey"}, r"preprocessing\.padding must be mean or black, got 'grey'"),
        ({"pad_multiple": 0}, r"preprocessing\.pad_multiple must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given, message):
    with pytest.raises(PyrafuseError, match=message):
        PreprocessingSettings(**given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preprocessing.std", "[0.1,0,0.1]"], "preprocessing.std must be three numbers above 0"),
        (["--preprocessing.mean", "[0.1,0.2]"], "preprocessing.mean"),
        (["--preprocessing.bgr", "perhaps"], "preprocessing.bgr"),
        (["--preprocessing.interpolation", "cubic"], "preprocessing.interpolation"),
        (["--preprocessing.padding", "grey"], "preprocessing.padding"),
        (["--preprocessing.men", "[0,0,0]"], "unknown option --preprocessing.men"),
    ],
)
def test_the_command_line_refuses_it_by_name(words, message, capsys):
    assert main(["train", "shapes", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_writes_it_and_goes_on_with_it(tmp_path, capsys):
    data = write_shapes(tmp_path / "data", num_train=4, num_val=2, size=64)
    words = ["--size", "64", "--epochs", "1", "--batch", "2", "--device", "cpu", "--data.workers", "0"]
    given = [
        "--preprocessing.bgr",
        "true",
        "--preprocessing.mean",
        "[0.5,0.4,0.3]",
        "--preprocessing.std",
        "0.1,0.2,0.3",
    ]
    run = tmp_path / "run"
    assert main(["train", str(data), "--model", "yolov3_small", *words, *given, "--output", str(run)]) == 0
    section = yaml.safe_load((run / "recipe.yaml").read_text())["preprocessing"]
    assert section == {
        "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3], "bgr": True, "interpolation": "antialias", "padding": "mean",
        "pad_multiple": 32, "round_down": False,
    }  # fmt: skip
    expected = Preprocessing(size=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3), bgr=True)
    assert load(run / "best.ckpt", device=torch.device("cpu")).card.preprocessing == expected

    capsys.readouterr()
    assert main(["train", "--resume", "--output", str(run), "--epochs", "2", "--preprocessing.bgr", "false"]) == 2
    assert "goes on with the preprocessing it began with" in capsys.readouterr().err
    assert main(["train", "--resume", "--output", str(run), "--epochs", "2"]) == 0

    again = [
        "--recipe",
        str(run / "recipe.yaml"),
        "--model",
        str(run / "best.ckpt"),
        "--preprocessing.round_down",
        "true",
    ]
    assert main(["train", str(data), *again, "--epochs", "1", "--output", str(tmp_path / "again")]) == 0
    card = load(tmp_path / "again" / "best.ckpt", device=torch.device("cpu")).card
    assert card.preprocessing == replace(expected, round_down=True)


def test_a_recipe_leaves_it_to_the_detector_that_training_starts_from(odd_checkpoint, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("preprocessing: {mean: [0.9, 0.9, 0.9]}\nmodel: {name: yolov3_small}")
    assert main(["train", "shapes", "--recipe", str(tmp_path / "mine.yaml"), "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["preprocessing"]["mean"] == [0.9, 0.9, 0.9]
    words = ["train", "shapes", "--recipe", str(tmp_path / "mine.yaml"), "--model", odd_checkpoint, "--print_config"]
    assert main(words) == 0
    assert yaml.safe_load(capsys.readouterr().out)["preprocessing"]["mean"] is None


def test_a_resumed_run_without_the_section_takes_that_of_its_checkpoint(odd_checkpoint, tmp_path):
    shutil.copy(odd_checkpoint, tmp_path / "last.ckpt")
    recipe = Recipe(
        model=ModelSettings(name="yolov3_small"),
        data=DataSettings(size=96, fit="letterbox"),
        run=RunSettings(output=str(tmp_path), resume=True),
    )
    assert settle(recipe)[0].preprocessing == of_preprocessing(ODD)
    with pytest.raises(
        PyrafuseError, match=r"goes on with the preprocessing it began with, .* BGR, .* asks for .* RGB, "
    ):
        settle(replace(recipe, preprocessing=PreprocessingSettings(bgr=False)))
