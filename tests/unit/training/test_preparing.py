"""From a recipe to a detector: anchors, weights of another one; and the optimiser's groups."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.models.factory import create_model
from pyrafuse.training.optimizing import base_lr, check_optimizer, create_optimizer, optimizer_for
from pyrafuse.training.preparing import (
    check_model,
    choose_devices,
    create_detector,
    fit_anchors,
    with_absolute_paths,
)
from pyrafuse.training.schedule import lr_factor
from pyrafuse.training.settings import (
    DataSettings,
    DropBlockSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
)

SMALL = {"backbone": {"width": 0.25}}
NOTHING = "weights: from nothing; --weights FILE starts from a checkpoint"


def data_of(sizes, *, width: int = 100, height: int = 100, crowd=None) -> DetectionData:
    boxes = np.array([(5, 5, 5 + w, 5 + h) for w, h in sizes], np.float32).reshape(-1, 4)
    flags = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd)
    record = ImageRecord(
        Path("a.jpg"), 1, width, height, boxes, np.zeros(len(boxes), np.int64), flags, np.ones(len(boxes), np.float32)
    )
    return DetectionData((record,), ("thing", "other"), (1, 2), "coco", "train")


def at(size: int) -> Preprocessing:
    return Preprocessing(size=(size, size))


class TestAnchors:
    CLUSTERS = ((10, 10), (20, 40), (60, 30))

    def test_are_the_clusters_small_ones_first(self):
        sizes = [(w + d, h) for w, h in self.CLUSTERS for d in (-1, 0, 0, 0, 1)]
        anchors = fit_anchors(data_of(sizes), at(100), num_levels=3, per_level=1, seed=0)
        assert anchors == (((10.0, 10.0),), ((20.0, 40.0),), ((60.0, 30.0),))

    def test_at_the_networks_size(self):
        anchors = fit_anchors(data_of(self.CLUSTERS, width=200, height=50), at(400), num_levels=1, per_level=3, seed=0)
        assert anchors == (((20.0, 80.0), (40.0, 320.0), (120.0, 240.0)),)

    @pytest.mark.parametrize(
        ("preprocessing", "expected"),
        [
            # 10 x 20 in 200 x 100 px, 30 x 10 in 50 x 100 px
            (Preprocessing(size=(80, 120)), ((6.0, 16.0), (72.0, 8.0))),  # by 0.6 and 0.8; by 2.4 and 0.8
            (Preprocessing(size=(80, 120), fit="letterbox"), ((6.0, 12.0), (24.0, 8.0))),  # by 0.6; by 0.8
            (Preprocessing(size=(80, 120), fit="keep_ratio"), ((6.0, 12.0), (36.0, 12.0))),  # by 0.6; by 1.2
        ],
    )
    def test_under_the_fit_that_is_used(self, preprocessing, expected):
        wide, tall = (
            data_of([shape], width=w, height=h) for shape, w, h in (((10, 20), 200, 100), ((30, 10), 50, 100))
        )
        data = replace(wide, records=(*wide.records, *tall.records))
        anchors = fit_anchors(data, preprocessing, num_levels=2, per_level=1, seed=0)
        assert anchors == tuple((row,) for row in expected)

    def test_are_fitted_as_the_recipe_fits_the_images(self):
        data = data_of([(10, 10)] * 20, width=128, height=64)
        for fit, expected in (("stretch", "10x20"), ("letterbox", "10x10")):
            said = []
            model = ModelSettings(name="yolov3", backbone="mobilenet_v2", options=SMALL, anchors="data")
            create_detector(Recipe(model=model, data=DataSettings(size=128, fit=fit)), data, say=said.append)
            assert expected in said[0]

    def test_crowds_do_not_count(self):
        data = data_of([(10, 10), (90, 90)], crowd=[False, True])
        assert fit_anchors(data, at(100), num_levels=1, per_level=1, seed=0) == (((10.0, 10.0),),)

    def test_fewer_boxes_than_anchors(self):
        anchors = fit_anchors(data_of([(10, 20)]), at(100), num_levels=3, per_level=3, seed=0)
        assert [len(row) for row in anchors] == [3, 3, 3]
        assert np.isfinite(anchors).all()
        assert (10.0, 20.0) in anchors[0] + anchors[1] + anchors[2]

    def test_same_seed_same_anchors(self):
        sizes = np.random.default_rng(0).uniform(5, 95, (200, 2))
        first, second = (fit_anchors(data_of(sizes), at(64), num_levels=3, per_level=3, seed=3) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("crowd", [None, [True]])
    def test_no_objects(self, crowd):
        data = data_of([(10, 10)] if crowd else [], crowd=crowd)
        with pytest.raises(PyrafuseError, match=r"the training images have no objects; use model\.anchors"):
            fit_anchors(data, at(100), num_levels=3, per_level=3, seed=0)


def test_a_recipes_detector_knows_its_data():
    said = []
    recipe = Recipe(
        model=ModelSettings(
            name="yolov3", backbone="mobilenet_v2", neck=("yolo_fpn", "asff"), anchors="data", options=SMALL
        ),
        data=DataSettings(size=160, fit="letterbox"),
    )
    detector = create_detector(recipe, data_of([(10, 20), (30, 40)]), say=said.append)
    assert detector.names == ("thing", "other")
    assert detector.card.category_ids == (1, 2)
    assert detector.card.preprocessing.size == (160, 160)
    assert detector.card.preprocessing.fit == "letterbox"
    assert detector.head.num_classes == 2
    assert len(detector.neck.necks) == 2
    assert said[0].startswith("anchors fitted to the data, finest level first: ")


@pytest.mark.parametrize(("size", "num_said"), [(320, 0), (416, 1)])
def test_anchors_for_another_size_are_told(size, num_said):
    said = []
    recipe = Recipe(
        model=ModelSettings(name="ssdlite320", options={"backbone": {"width": 0.25}}),
        data=DataSettings(size=size),
    )
    create_detector(recipe, data_of([(10, 20)]), say=said.append)
    assert len(said) == num_said + 1
    assert said[-1] == NOTHING
    assert all("made for 320 px, and the images will have 416: train with --size 320" in text for text in said[:-1])


class TestDropBlock:
    PHASES = DropBlockSettings(phases=((0, 3, 3, 1),))

    def test_a_neck_without_it(self):
        said = "speak of 3 levels, but the neck has 0 DropBlocks; take one with yolo_fpn.*--without dropblock"
        recipe = Recipe(model=ModelSettings(name="yolov3_small", options=SMALL), dropblock=self.PHASES)
        with pytest.raises(PyrafuseError, match=said):
            check_model(recipe)
        with pytest.raises(PyrafuseError, match=said):
            create_detector(recipe, data_of([(10, 20)]), say=print)

    def test_a_neck_that_has_it(self):
        check_model(Recipe(model=ModelSettings(name="yolov3_small", neck=("yolo_fpn",)), dropblock=self.PHASES))


class TestDevices:
    @pytest.fixture
    def machine(self, monkeypatch):
        def build(*, gpus: int, mps: bool = False):
            monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
            monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

        return build

    @pytest.mark.parametrize(
        ("gpus", "mps", "accelerator", "devices", "said"),
        [
            (0, False, "gpu", "auto", "no device gpu here to train on; choose --device from auto, cpu$"),
            (0, False, "mps", "auto", "no device mps here"),
            (2, False, "mps", "auto", "no device mps here .* auto, cpu, 0, 1$"),
            (0, False, "gpu", (0,), "no device number 0 here"),
            (0, False, "auto", (0,), "no device number 0 here"),
            (2, False, "gpu", (0, 7), "no device number 7 here .* auto, cpu, 0, 1$"),
            (2, False, "auto", 3, "no device number 2 here"),
            (0, True, "mps", (1,), "no device number 1 here .* auto, cpu, 0, mps$"),
        ],
    )
    def test_that_are_not_here(self, machine, gpus, mps, accelerator, devices, said):
        machine(gpus=gpus, mps=mps)
        with pytest.raises(PyrafuseError, match=said):
            choose_devices(RunSettings(accelerator=accelerator, devices=devices))

    @pytest.mark.parametrize(
        ("gpus", "accelerator", "devices", "taken"),
        [
            (0, "auto", "auto", 1),
            (0, "cpu", 2, 2),
            (2, "cpu", 4, 4),
            (2, "auto", "auto", 1),
            (2, "gpu", 2, 2),
            (2, "gpu", (1,), [1]),
        ],
    )
    def test_that_are_here(self, machine, gpus, accelerator, devices, taken):
        machine(gpus=gpus)
        assert choose_devices(RunSettings(accelerator=accelerator, devices=devices)) == taken

    def test_as_many_as_torchrun_says(self, machine, monkeypatch):
        machine(gpus=2)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        assert choose_devices(RunSettings()) == 2


def test_a_recipe_for_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/train", "shapes", "other"):
        Path(name).mkdir(parents=True)
    Path("start.ckpt").touch()
    data = DataSettings(path="photos", train="train", val="other")
    moved = with_absolute_paths(Recipe(data=data, model=ModelSettings(start_from="start.ckpt")))
    assert (moved.data.path, moved.data.train, moved.data.val) == (f"{tmp_path}/photos", "train", f"{tmp_path}/other")
    assert moved.model.start_from == f"{tmp_path}/start.ckpt"
    for names in (DataSettings(), DataSettings(path="nowhere", val="valid")):
        recipe = Recipe(data=names, model=ModelSettings(backbone_weights="torchvision/resnet50"))
        assert with_absolute_paths(recipe) == recipe


class TestOptimizer:
    @pytest.fixture(scope="class")
    @classmethod
    def detector(cls):
        return create_model("yolov3_small", num_classes=1, **SMALL)

    def test_groups(self, detector):
        settings = OptimizerSettings(backbone_lr=0.1, weight_decay=0.02)
        groups = create_optimizer(detector, settings, lr=1.0).param_groups
        assert sorted((g["base_lr"], g["weight_decay"]) for g in groups) == [(0.1, 0), (0.1, 0.02), (1, 0), (1, 0.02)]
        assert sum(len(g["params"]) for g in groups) == len(list(detector.parameters()))
        for group in groups:
            assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])

    def test_what_finds_offsets_learns_slowly(self, detector):
        deformable = create_model("ddod", num_classes=1, backbone="mobilenet_v2")
        groups = create_optimizer(deformable, OptimizerSettings(offset_lr=0.25, decay_all=True), lr=1.0).param_groups
        slow = {id(p) for group in groups if group["base_lr"] == 0.25 for p in group["params"]}
        assert {name for name, p in deformable.named_parameters() if id(p) in slow} == {
            f"head.{tower}_tower.convs.0.offset.{part}" for tower in ("class", "box") for part in ("weight", "bias")
        }
        for name, rates in (("sgd", [1.0]), ("adamw", [0.01, 1.0])):
            groups = create_optimizer(deformable, OptimizerSettings(name, decay_all=True), lr=1.0).param_groups
            assert sorted({g["base_lr"] for g in groups}) == rates
        groups = create_optimizer(detector, OptimizerSettings(offset_lr=0.25, decay_all=True), lr=1.0).param_groups
        assert {g["base_lr"] for g in groups} == {1.0}

    def test_groups_that_do_not_differ_stay_apart_for_runs_that_go_on(self, detector):
        settings = OptimizerSettings(weight_decay=0.0)
        sizes = [len(g["params"]) for g in create_optimizer(detector, settings, lr=1.0).param_groups]
        fast = [len(g["params"]) for g in create_optimizer(detector, OptimizerSettings(), lr=1.0).param_groups]
        assert len(sizes) == 4
        assert sizes == fast

    def test_a_run_with_other_groups_does_not_go_on(self, detector):
        began = {"param_groups": [{"params": [0, 1, 2]}]}
        with pytest.raises(PyrafuseError, match=r"began with groups of \[3\] parameters in its optimizer, and these "):
            check_optimizer(began, optimizer_for(detector, Recipe()))

    @pytest.mark.parametrize(
        ("model", "rates"),
        [
            (ModelSettings(backbone_weights="mobilenet.pth"), [0.1, 1.0]),
            (ModelSettings(start_from="best.ckpt"), [0.1, 1.0]),
            (ModelSettings(options={"backbone": {"width": 0.25}}), [1.0]),
            (ModelSettings(), [1.0]),
        ],
    )
    def test_a_fresh_backbone_learns_as_fast_as_the_rest(self, detector, model, rates):
        recipe = Recipe(model=model, optimizer=OptimizerSettings(lr=1.0, lr_batch=16, backbone_lr=0.1))
        assert sorted({g["base_lr"] for g in optimizer_for(detector, recipe).param_groups}) == rates

    def test_decay_on_everything(self, detector):
        groups = create_optimizer(detector, OptimizerSettings(decay_all=True), lr=1.0).param_groups
        assert {g["weight_decay"] for g in groups} == {5e-4}

    def test_frozen_parameters_are_left_out(self):
        options = {"backbone": {"width": 0.25, "frozen_stages": 1}}
        detector = create_model("yolov3_small", num_classes=1, **options)
        groups = create_optimizer(detector, OptimizerSettings(name="adamw", momentum=0.8), lr=1.0).param_groups
        assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in detector.parameters())
        assert groups[0]["betas"] == (0.8, 0.999)

    def test_the_rate_grows_with_the_batch(self):
        recipe = Recipe(optimizer=OptimizerSettings(lr=0.01, lr_batch=64), run=RunSettings(batch_size=16))
        assert base_lr(recipe) == pytest.approx(0.0025)


class TestSchedule:
    def factor(self, settings, epoch, step=0):
        return lr_factor(settings, epoch=epoch, step=step, steps_per_epoch=10, epochs=12)

    def test_burn_in(self):
        settings = ScheduleSettings(burn_in_epochs=2.0, burn_in_power=2.0, min_lr=0.0)
        assert [self.factor(settings, *place) for place in ((0, 0), (0, 5), (1, 0), (2, 0))] == [0, 1 / 16, 1 / 4, 1]
        # half of the way down, between epoch 2 and 12
        assert self.factor(settings, 7) == pytest.approx(0.5)
        assert self.factor(settings, 11, 9) < 1e-3

    def test_closing_epochs_are_at_the_lowest_rate(self):
        settings = ScheduleSettings(burn_in_epochs=0.0, min_lr=0.1, closing_epochs=2)
        assert self.factor(settings, 0) == 1
        assert self.factor(settings, 5) == pytest.approx(0.55)
        assert [self.factor(settings, epoch) for epoch in (10, 11)] == [0.1, 0.1]

    def test_steps(self):
        settings = ScheduleSettings(kind="step", burn_in_epochs=0.0, steps=(4, 8))
        assert [self.factor(settings, e, 9) for e in (3, 4, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("create", "said"),
    [
        (lambda: DataSettings(val_fraction=1.0), "between 0 and 1, got 1.0"),
        (lambda: RunSettings(epochs=0), "run.epochs must be 1 or more, got 0"),
        (lambda: RunSettings(batch_size=-2), "run.batch_size must be 1 or more, got -2"),
        (lambda: RunSettings(accumulate=0), "run.accumulate must be 1 or more, got 0"),
        (lambda: DataSettings(size=100), "data.size must be a multiple of 32, got 100; give 96 or 128"),
        (lambda: DataSettings(sizes=(64, 0)), "data.sizes must be a multiple of 32, got 0; give 32 or more"),
        (lambda: RunSettings(batch_size=6, accumulate=4), "run.batch_size 6 does not split into 4 batches"),
        (lambda: RunSettings(ema=2.0), "run.ema is the share .* below 1; got 2.0"),
        (lambda: RunSettings(ema=1.0), "below 1; got 1.0"),
        (lambda: RunSettings(ema=float("nan")), "below 1; got nan"),
        (lambda: RunSettings(patience=-1), "run.patience must be 0 or more, got -1"),
        (lambda: RunSettings(evaluate_every=0), "run.evaluate_every must be 1 or more, got 0"),
        (lambda: RunSettings(max_detections=0), "run.max_detections must be 1 or more, got 0"),
        (lambda: RunSettings(nodes=0), "run.nodes must be 1 or more, got 0"),
        (lambda: RunSettings(devices=0), "run.devices must be 1 or more, got 0"),
        (lambda: RunSettings(devices=()), r"run.devices: \[\] are no numbers"),
        (lambda: RunSettings(devices=(0, 0)), r"run.devices: \[0, 0\] are no numbers"),
        (lambda: DataSettings(workers=-1), "data.workers must be 0 or more, got -1"),
        (lambda: DataSettings(cache_mb=-1), "data.cache_mb must be 0 or more, got -1"),
        (lambda: ModelSettings(frozen=-1), "model.frozen must be 0 or more, got -1"),
        (lambda: ScheduleSettings(burn_in_power=-1.0), "schedule.burn_in_power must be 0 or more, got -1.0"),
        (lambda: ScheduleSettings(burn_in_epochs=-1.0), "schedule.burn_in_epochs must be 0 or more"),
        (lambda: ScheduleSettings(unmixed_epochs=-1), "schedule.unmixed_epochs must be 0 or more"),
        (lambda: ScheduleSettings(burn_in_start=2.0), r"schedule.burn_in_start must be in 0..1, got 2.0"),
        (lambda: ScheduleSettings(min_lr=float("nan")), r"schedule.min_lr must be in 0..1, got nan"),
        (lambda: ScheduleSettings(steps=(4, -1)), "each of schedule.steps must be 0 or more, got -1"),
    ],
)
def test_impossible_settings(create, said):
    with pytest.raises(PyrafuseError, match=said):
        create()


@pytest.mark.parametrize(
    ("names", "smooth", "said"),
    [
        (("a",), True, ["label smoothing does nothing with one class: its target stays 1"]),
        (
            ("a", "b"),
            True,
            ["label smoothing with two classes: the targets are 0.67 and 0.33, as 1/K would make both 0.5"],
        ),
        (("a", "b", "c"), True, []),
        (("a", "b"), False, []),
    ],
)
def test_smoothing_of_few_classes_is_said_once(names, smooth, said):
    data = replace(data_of([(9, 9)]), names=names, category_ids=tuple(range(len(names))))
    options = {**SMALL, "criterion": {"label_smoothing": smooth}}
    heard = []
    create_detector(Recipe(model=ModelSettings(options=options)), data, say=heard.append)
    assert heard == [*said, NOTHING]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            {"size": 320},
            "images of 224 x 224 px alone, and these have 320 x 320 px; give --size 224, or build it",
        ),
        ({"size": 224, "sizes": (224, 256)}, "these have 256 x 256 px; give --size 224"),
        ({"size": 224, "fit": "keep_ratio"}, "keep_ratio makes images of many sizes, .* give --data.fit letterbox"),
        ({"size": 224}, None),
    ],
)
def test_sizes_that_the_backbone_cannot_take_are_refused_before_the_data_are_read(data, said):
    recipe = Recipe(model=ModelSettings(backbone="timm/coat_lite_tiny"), data=DataSettings(**data))
    with pytest.raises(PyrafuseError, match=said) if said else nullcontext():
        check_model(recipe)
