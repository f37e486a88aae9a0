"""Training from Python takes the options of the command, by name, and answers habits with ours."""

import subprocess
import sys
from pathlib import Path

import pytest

import pyrafuse
from pyrafuse.base.errors import PyrafuseError
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
