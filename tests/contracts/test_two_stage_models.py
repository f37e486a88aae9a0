"""What detectors that look twice promise besides: targets steer them, images do not meet, crowds."""

from dataclasses import is_dataclass, replace

import pytest
import torch

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.assignment import IGNORED
from pyrafuse.core.regions import TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.models.factory import create_model

KINDS = ("two_stage",)


@torch.no_grad()
def test_candidates_are_what_the_last_stage_tells(detector):
    candidates = detector.eval().decode(torch.randn(2, 3, 64, 96))
    rows = candidates.scores.shape[1]
    assert 0 < rows <= 30
    is_agnostic = detector.stages[-1].head.num_boxes == 1
    assert candidates.boxes.shape == ((2, rows, 4) if is_agnostic else (2, rows, 3, 4))
    assert candidates.levels.shape == (2, rows)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_targets_and_not_the_mode_steer_sampling(detector, some_targets, mode):
    images = torch.randn(2, 3, 64, 96)
    plain = detector.train(mode)(images)
    sampled = detector(images, some_targets)
    assert isinstance(plain, TwoStagePredictions)
    assert isinstance(sampled, TwoStagePredictions)
    assert plain.assignments == ()
    assert len(sampled.assignments) == len(sampled.stages) == len(plain.stages)
    for stage, assignment in zip(sampled.stages, sampled.assignments, strict=True):
        assert stage.classes.dtype == stage.deltas.dtype == torch.float32
        assert stage.classes.shape == (2, 24, 4)
        assert torch.equal(assignment.objects != IGNORED, stage.regions.valid)
        assert assignment.is_positive[0].any()
        assert not assignment.is_positive[1].any()
        assert stage.regions.is_object[0].sum() <= 4
    assert not any(stage.regions.is_object.any() for stage in plain.stages)


def test_regions_to_learn_from_end_where_each_image_does(detector, some_targets):
    images = torch.randn(2, 3, 64, 96)
    whole = detector.train()(images, some_targets)
    smaller = detector(images, some_targets, sizes=[(64, 96), (40, 56)])
    for stage, unbounded in zip(smaller.stages, whole.stages, strict=True):
        drawn = ~stage.regions.is_object[1]
        assert (stage.regions.boxes[1, drawn] <= torch.tensor([56, 40, 56, 40])).all()
        assert (unbounded.regions.boxes[1] > torch.tensor([56, 40, 56, 40])).any()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(detector):
    images = torch.randn(3, 3, 64, 96)
    alone, among = detector.eval().decode(images[1:2]), detector.decode(images)
    torch.testing.assert_close(among.scores[1].sort(dim=0).values, alone.scores[0].sort(dim=0).values)


def test_a_crowd_of_objects(detector):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corners, corners + 1 + 20 * torch.rand(500, 2, generator=generator)), dim=1)
    targets = Targets.pad([boxes, boxes[:1]], [torch.arange(500) % 3, torch.tensor([2])])
    predictions = detector.train()(torch.randn(2, 3, 64, 96), targets)
    assert predictions.stages[0].classes.shape == (2, 24, 4)
    losses = detector.criterion(predictions, targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


def test_an_object_without_weight_teaches_nothing(detector, some_targets):
    predictions = detector.eval()(torch.randn(2, 3, 64, 96), some_targets)
    light = replace(some_targets, weights=some_targets.weights * 0)
    torch.manual_seed(0)
    whole = detector.criterion(predictions, some_targets)
    torch.manual_seed(0)
    none = detector.criterion(predictions, light)
    for name, loss in none.items():
        assert loss == 0 if name.endswith("box") else loss < whole[name]


def test_unlikely_detections_end_where_each_image_does(detector):
    sizes = [(64, 96), (32, 50)]
    postprocess = replace(detector.postprocess, score=0.0)
    found = detector.eval().detect(torch.randn(2, 3, 64, 96), postprocess=postprocess, sizes=sizes)
    for detections, (height, width) in zip(found, sizes, strict=True):
        assert 0 < len(detections) <= detector.postprocess.max_detections
        assert (detections.boxes >= 0).all()
        assert (detections.boxes <= torch.tensor([width, height, width, height])).all()


def test_criteria_ask_for_samples(detector, some_targets):
    with pytest.raises(PyrafuseError, match=r"detector\(images, targets\)"):
        detector.criterion(detector(torch.randn(2, 3, 64, 64)), some_targets)


def test_predictions_are_registered(detector, some_targets):
    leaves = torch.utils._pytree.tree_leaves(detector(torch.randn(2, 3, 64, 64), some_targets))
    assert not any(is_dataclass(leaf) for leaf in leaves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "yolo_pfn"}, r"unknown neck 'yolo_pfn'; did you mean 'yolo_fpn'"),
        (
            {"backbone": {"name": "vgg16", "strides": (4, 8, 16, 32)}},
            r"maps at strides 2, 4, 8, 16; \(4, 8, 16, 32\) were asked for",
        ),
        ({"necks": {"pafpn": {}}}, r"options are given for pafpn, but the necks are fpn"),
        ({"stages": {"head": {"depth": 3}}}, r"the RoI head region takes no option 'depth'; choose from "),
    ],
)
def test_complaints(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("faster_rcnn", num_classes=2, **options)
