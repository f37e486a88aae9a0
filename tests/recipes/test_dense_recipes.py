"""Recipes of mmdetection's detectors say what its settings say, build, and train."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.models.factory import create_model
from pyrafuse.recipes.registry import RECIPES, SOURCES
from pyrafuse.training.preparing import choose_preprocessing
from pyrafuse.training.run import train
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import DataSettings, Recipe, ScheduleSettings
from pyrafuse.training.starting import settle

FIGURES = {
    "retinanet_coco": 36.5,
    "libra_retinanet_coco": 37.6,
    "ga_retinanet_coco": 36.9,
    "retinanet_nas_fpn_coco": 40.5,
    "fcos_coco": 36.6,
    "atss_coco": 39.4,
    "ddod_coco": 41.7,
    "ddod_fcos_coco": 41.6,
    "faster_rcnn_coco": 37.4,
    "faster_rcnn_pafpn_coco": 37.5,
    "libra_rcnn_coco": 38.3,
    "cascade_rcnn_coco": 40.3,
    "cascade_rcnn_rfp_coco": 44.8,
}
LINES = ("libra_sampling_coco", "libra_pyramid_coco", "libra_box_loss_coco")
STUDIES = (
    "retinanet_separate_thresholds_coco",
    "atss_level_weights_rising_coco",
    "atss_level_weights_falling_coco",
    "atss_separate_assigners_coco",
)
STEPS = 7330  # of 16 images of COCO's 117,266 with objects


@pytest.mark.parametrize("name", [*FIGURES, *STUDIES, *LINES])
def test_the_model_can_be_built(name):
    model = RECIPES.create(name).model
    neck = {} if model.neck is None else {"neck": model.neck}
    with torch.device("meta"):
        detector = create_model(model.name, num_classes=3, **neck, **model.options)
    assert not next(detector.backbone.parameters()).requires_grad
    published = FIGURES.get(name, "a line" if name in LINES else "a study")
    assert f"{published}" in SOURCES[name].published


def test_lines_of_libras_table():
    """Each has one part of the whole and nothing of the others."""
    models = [RECIPES.create(name).model for name in ("faster_rcnn_coco", *LINES)]
    with torch.device("meta"):
        plain, sampling, pyramid, box_loss = (
            create_model(m.name, num_classes=3, **({"neck": m.neck} if m.neck else {}), **m.options) for m in models
        )

    def parts(detector):
        sampler = detector.stages[0].sampler.sampler
        return (
            type(sampler.negatives).__name__,
            type(detector.neck).__name__,
            getattr(detector.criterion.stages[0].box_loss, "__name__", None),
        )

    base = parts(plain)
    changed = [[one != other for one, other in zip(parts(d), base, strict=True)] for d in (sampling, pyramid, box_loss)]
    assert changed == [[True, False, False], [False, True, False], [False, False, True]]
    assert RECIPES.create("faster_rcnn_coco").optimizer.lr == 0.02


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
    assert choose_preprocessing(recipe) == Preprocessing(size=(800, 1333), fit="keep_ratio")
    assert choose_preprocessing(Recipe(data=DataSettings(size=480, fit="keep_ratio"))).size == (480, 800)
    assert choose_preprocessing(Recipe(data=DataSettings(size=416, fit="letterbox"))).size == (416, 416)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"longest": 1333}, "longest is the limit"),
        ({"size": 416, "longest": 320, "fit": "keep_ratio"}, "longest is the limit"),
        ({"sizes": (320,), "fit": "keep_ratio"}, "data.sizes are squares"),
    ],
)
def test_sizes_that_do_not_go_together(settings, said):
    with pytest.raises(ValueError, match=said):
        settle(Recipe(data=DataSettings(**settings)))


def test_level_weights_by_their_ends():
    rising = create_model("atss", num_classes=3, **_options("rising"))
    falling = create_model("atss", num_classes=3, **_options("falling"))
    positives = torch.tensor([0.0, 5, 60, 80, 10])
    assert rising.criterion.level_weights(positives).tolist() == [1, 1.25, 1.5, 1.75, 2]
    assert falling.criterion.level_weights(positives).tolist() == [3, 2.5, 2, 1.5, 1]


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
