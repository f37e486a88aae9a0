"""Recipes of the dense detectors say what mmdetection's settings say, build, and train."""

from dataclasses import replace

import pytest
from rich.console import Console

from pyrafuse.core.preprocessing import Preprocessing
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES, SOURCES
from pyrafuse.training.preparing import choose_preprocessing
from pyrafuse.training.run import train
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import DataSettings, ScheduleSettings

FIGURES = {
    "retinanet_coco": 36.5,
    "libra_retinanet_coco": 37.6,
    "ga_retinanet_coco": 36.9,
    "retinanet_nas_fpn_coco": 40.5,
    "fcos_coco": 36.6,
    "atss_coco": 39.4,
    "ddod_coco": 41.7,
    "ddod_fcos_coco": 41.6,
}
STUDIES = (
    "retinanet_separate_thresholds_coco",
    "atss_level_weights_rising_coco",
    "atss_level_weights_falling_coco",
    "atss_separate_assigners_coco",
)
STEPS = 7330  # of 16 images of COCO's 117,266 with objects


@pytest.mark.parametrize("name", [*FIGURES, *STUDIES])
def test_the_model_can_be_built(name):
    model = RECIPES.create(name).model
    detector = create_model(model.name, num_classes=3, **model.options)
    assert not next(detector.backbone.parameters()).requires_grad
    assert f"{FIGURES.get(name, 'a study')}" in SOURCES[name].published


def test_the_schedule_called_1x():
    schedule = RECIPES.create("retinanet_coco").schedule

    def factor(epoch, step):
        return lr_factor(schedule, epoch=epoch, step=step, steps_per_epoch=STEPS, epochs=12)

    assert factor(0, 0) == pytest.approx(0.001)
    assert factor(0, 250) == pytest.approx(0.001 + 0.999 / 2)
    assert factor(0, 499) == pytest.approx(0.001 + 0.999 * 499 / 500)
    assert (factor(0, 500), factor(7, STEPS - 1)) == (1, 1)
    assert (factor(8, 0), factor(10, 9)) == pytest.approx((0.1, 0.1))
    assert factor(11, 0) == pytest.approx(0.01)


def test_warm_up_goes_on_over_epochs():
    schedule = ScheduleSettings(kind="step", steps=(8,), burn_in_steps=100, burn_in_power=1.0, burn_in_start=0.5)
    assert lr_factor(schedule, epoch=2, step=10, steps_per_epoch=19.5, epochs=12) == pytest.approx(0.75)


def test_the_optimizer_and_the_images():
    recipe = RECIPES.create("atss_coco")
    given = recipe.optimizer
    assert (given.name, given.lr, given.lr_batch, given.momentum) == ("sgd", 0.01, 16, 0.9)
    assert (given.weight_decay, given.decay_all, given.clip_norm) == (1e-4, True, 0)
    assert choose_preprocessing(recipe.data) == Preprocessing(size=(800, 1333), fit="keep_ratio")
    assert choose_preprocessing(DataSettings(size=480, fit="keep_ratio")).size == (480, 800)
    assert choose_preprocessing(DataSettings(size=416, fit="letterbox")).size == (416, 416)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"longest": 1333}, "longest is the limit"),
        ({"longest": 320, "fit": "keep_ratio"}, "longest is the limit"),
        ({"sizes": (320,), "fit": "keep_ratio"}, "data.sizes are squares"),
    ],
)
def test_sizes_that_do_not_go_together(settings, said):
    with pytest.raises(ValueError, match=said):
        DataSettings(**settings)


def test_level_weights_by_their_ends():
    rising = create_model("atss", num_classes=3, **_options("rising"))
    falling = create_model("atss", num_classes=3, **_options("falling"))
    assert tuple(rising.criterion.level_weights.ends) == (1, 2)
    assert tuple(falling.criterion.level_weights.ends) == (3, 1)


def _model(name):
    model = RECIPES.create(name).model
    return model.name, model.options


def _options(word):
    return _model(f"atss_level_weights_{word}_coco")[1]


def test_two_steps_at_images_of_their_own_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("PYRAFUSE_CACHE", str(tmp_path / "cache"))
    recipe = RECIPES.create("atss_coco")
    recipe = replace(
        recipe,
        model=replace(recipe.model, backbone="resnet18"),
        data=replace(recipe.data, path="shapes:train=4,val=2,size=96", size=64, longest=96, workers=0),
        run=replace(recipe.run, epochs=2, batch_size=4, output=str(tmp_path / "run"), accelerator="cpu"),
    )
    result = train(recipe, console=Console(quiet=True))
    assert 0 <= result.evaluation.ap <= 1
