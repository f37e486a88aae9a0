"""Training from Python takes the options of the command, by name, and answers habits with ours."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pyrafuse
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.export import write_file
from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.small import small
from pyrafuse.training import run
from pyrafuse.training.settings import Recipe


@pytest.fixture
def given(monkeypatch) -> list[Recipe]:
    """Recipes that would have been trained."""
    recipes: list[Recipe] = []
    monkeypatch.setattr(run, "train", lambda recipe, console: recipes.append(recipe))
    return recipes


def test_a_data_set_and_options_are_a_recipe(given):
    pyrafuse.train(
        Path("my_data"), epochs=5, size=320, batch=8, lr=0.02, device=(0, 1), seed=None, with_=["multi_scale"],
        **{"optimizer.name": "adamw", "model.neck": ["yolo_fpn", "asff"], "data.strict": True},
    )  # fmt: skip
    (recipe,) = given
    assert (recipe.data.path, recipe.data.size, recipe.data.strict) == ("my_data", 320, True)
    assert (recipe.run.epochs, recipe.run.batch_size, recipe.run.seed) == (5, 8, small().run.seed)
    assert (recipe.run.accelerator, tuple(recipe.run.devices)) == ("gpu", (0, 1))
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adamw", 0.02)
    assert tuple(recipe.model.neck or ()) == ("yolo_fpn", "asff")
    assert recipe.data.sizes


def test_a_recipe_is_trained_as_it_is(given):
    pyrafuse.train(small())
    pyrafuse.train("d", recipe="atss_coco")
    assert given[0] == small()
    assert (given[1].model.name, given[1].data.path) == ("atss", "d")
    with pytest.raises(PyrafuseError, match="a Recipe is whole, and epochs would change it"):
        pyrafuse.train(small(), epochs=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imgsz": 640}, "unknown option --imgsz; did you mean --size?"),
        ({"batch_size": 4}, "unknown option --batch_size; did you mean --batch?"),
        ({"lr0": 0.1}, "did you mean --lr?"),
        ({"epochs": "many"}, "expected int, got 'many'"),
        ({"size": 100}, "data.size must be a multiple of 32, got 100"),
    ],
)
def test_what_does_not_fit_is_named(given, options, message):
    with pytest.raises(PyrafuseError) as raised:
        pyrafuse.train("d", **options)
    assert message in str(raised.value)
    assert given == []


def test_importing_pyrafuse_waits_for_nothing_heavy():
    program = (
        "import sys, pyrafuse; dir(pyrafuse); print([m for m in ('torch', 'rich', 'PIL', 'yaml') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small detector that was not trained, in a file, and the data that it could have been trained on."""
    folder = tmp_path_factory.mktemp("calling")
    write_shapes(folder / "data", num_train=2, num_val=3, size=64)
    detector = create_model("yolov3_small", num_classes=5, backbone={"width": 0.25})
    names = ("circle", "square", "triangle", "star", "cross")
    card = replace(detector.card, names=names, category_ids=(1, 2, 3, 4, 5), preprocessing=Preprocessing(size=(64, 64)))
    detector.card = card
    pyrafuse.save(detector, folder / "small.ckpt")
    return folder / "small.ckpt"


def test_an_evaluation_is_that_of_the_command(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data, options = checkpoint.parent / "data", {"batch": 2, "workers": 0, "device": "cpu", "score": 0.0}
    result = pyrafuse.evaluate(checkpoint, data, **options, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")
    assert main(["evaluate", str(checkpoint), str(data), "--batch", "2", "--workers", "0", "--score", "0"]) == 0
    written = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert result.num_images == 3
    assert written["ap"] == pytest.approx(result.ap)
    pyrafuse.evaluate(checkpoint, data, **options, output="page", progress=False)
    assert (tmp_path / "page" / "report.html").is_file()


def test_an_export_takes_a_file_or_a_detector_before_and_after_its_folder_is_imported(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("pyrafuse.cli.calling.write_file", lambda *_, **values: given.append(values))
    pyrafuse.export("runs/a", "a.onnx", size="320", static=True, consumer=None)
    detector = object()
    pyrafuse.export(detector, tmp_path / "b.onnx", max_ap_loss=0.02, progress=False)
    first, second = given
    assert (first["model"], first["file"], first["size"], first["static"]) == (
        Path("runs/a"),
        Path("a.onnx"),
        320,
        True,
    )
    assert (second["model"], second["file"], second["max_ap_loss"]) == (detector, tmp_path / "b.onnx", 0.02)
    assert set(first) == set(inspect.signature(write_file).parameters)
    assert importlib.import_module("pyrafuse.export.exporting").export is not pyrafuse.export


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pyrafuse.evaluate("a.ckpt", "d", conf=0.5), "unknown option --conf; did you mean --score?"),
        (lambda: pyrafuse.evaluate("a.ckpt", "d", score="high"), "expected float, got 'high'"),
        (lambda: pyrafuse.evaluate("none.ckpt", "d"), "no such checkpoint: none.ckpt"),
        (lambda: pyrafuse.export("a.ckpt", "a.onnx", imgsz=320), "unknown option --imgsz; did you mean --size?"),
        (lambda: pyrafuse.export("a.ckpt", "a.onnx", list=True), "list is for the command line"),
    ],
)
def test_options_of_evaluation_and_export_that_do_not_fit_are_named(call, message):
    with pytest.raises(PyrafuseError, match=re.escape(message)):
        call()
