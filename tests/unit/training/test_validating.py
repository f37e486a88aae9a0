"""Losses of the validation images: their values, and that they leave no trace in the training."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.core.losses import LevelLosses
from pyrafuse.core.over_processes import divisor_over_processes, mean_over_processes, sum_over_processes
from pyrafuse.core.targets import Targets
from pyrafuse.losses.harmonizing import HarmonizedClassification
from pyrafuse.models.factory import create_model
from pyrafuse.training import validating as module
from pyrafuse.training.validating import MeanLosses, mean_losses, validate, validating

TWO_STAGE = {
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"fpn": {"out_channels": 16}},
    "stages": {"head": {"channels": 16}, "sampler": {"number": 16}},
}


def report(box, classes):
    return LevelLosses(
        {"box": torch.tensor(box), "class": torch.tensor(classes)}, torch.zeros(len(box)), torch.zeros(1, 0).bool()
    )


def test_means_are_over_images_not_batches():
    losses = MeanLosses()
    assert mean_losses([losses.sums()]) == {}
    losses.add(report([1.0, 2.0], [0.5, 0.5]), num_images=3)
    losses.add(report([7.0, 0.0], [5.0, 0.0]), num_images=1)
    assert mean_losses([losses.sums()]) == {"loss": 6.0, "loss_box": (3 * 3 + 7) / 4, "loss_class": (3 * 1 + 5) / 4}


def test_processes_put_their_sums_together():
    one, other, idle = MeanLosses(), MeanLosses(), MeanLosses()
    one.add(report([3.0], [1.0]), num_images=3)
    other.add(report([7.0], [5.0]), num_images=1)
    parts = [each.sums() for each in (one, other, idle)]
    assert mean_losses(parts) == {"loss": 6.0, "loss_box": 4.0, "loss_class": 2.0}
    assert mean_losses(parts[1:]) == {"loss": 12.0, "loss_box": 7.0, "loss_class": 5.0}


def test_samples_are_the_same_each_time_and_random_numbers_go_on():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    drawn = []
    for _ in range(2):
        with validating(torch.device("cpu")):
            drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn"])
def test_a_two_stage_detector_samples_for_the_losses_alone(name):
    torch.manual_seed(0)
    detector = create_model(name, num_classes=2, **TWO_STAGE).eval()
    images, targets = torch.randn(1, 3, 64, 96), Targets.pad([torch.tensor([[4.0, 4, 40, 40]])], [torch.tensor([1])])
    calls = []
    detector.backbone.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        found, to_learn = detector.predict_and_learn(images, targets)
        assert len(calls) == 1
        torch.testing.assert_close(found.stages[-1].classes, detector(images).stages[-1].classes)
        direct, given = detector.detect(images), detector.detect(images, predictions=found)
        torch.testing.assert_close(given[0].boxes, direct[0].boxes)
        assert not found.assignments
        assert [stage.regions.boxes.shape[1] for stage in to_learn.stages] == [16] * len(detector.stages)
        losses = detector.criterion(to_learn, targets)
        assert all(value.isfinite() for value in losses.values())


def test_a_moving_population_stands_still_in_evaluation():
    loss = HarmonizedClassification(num_bins=4, momentum=0.5)
    logits, targets, counts = torch.zeros(6), torch.ones(6), torch.ones(6, dtype=torch.bool)
    loss(logits, targets, counts)
    moved = loss.density.population.clone()
    assert moved.sum() == 3.0
    first = loss.eval()(logits, targets, counts)
    assert torch.equal(loss.density.population, moved)
    assert loss(logits, targets, counts) == first


def test_processes_with_fewer_batches_are_not_waited_for(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.mul_(5))
    assert mean_over_processes(torch.tensor(4.0)) == 10
    with validating(torch.device("cpu")):
        assert mean_over_processes(torch.tensor(4.0)) == sum_over_processes(torch.tensor(4.0)) == 4
    assert sum_over_processes(torch.tensor(4.0)) == 20


def test_one_object_in_all_processes_counts_as_one(monkeypatch):
    assert divisor_over_processes(torch.tensor(0.0)) == 1
    assert divisor_over_processes(torch.tensor(3.0)) == 3
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.add_(1))  # the others hold one object
    assert divisor_over_processes(torch.tensor(0.0)) == 0.25
    assert divisor_over_processes(torch.tensor(2.0)) == 0.75


BOX = np.array([[4, 4, 24, 24]], np.float32)
NUM_IMAGES = 7


def found_in(rows, *, shifted=False):
    """Two detections of each image, the right one the later one: all have the same score."""
    boxes = torch.tensor([[30.0, 30, 50, 50], [44.0 if shifted else 4, 4, 24, 24]])
    levels = torch.zeros(2, dtype=torch.int64)
    return [Detections(boxes=boxes, scores=torch.full((2,), 0.5), labels=levels, levels=levels) for _ in rows]


def test_all_processes_have_the_figures_of_one_where_scores_are_equal(in_processes, monkeypatch):
    """The ids run against the order of the images, of which every second one has an object."""
    records = tuple(
        ImageRecord(Path(f"{n}.png"), -n, 64, 64, BOX[: n % 2], np.zeros(n % 2, np.int64), np.zeros(n % 2, bool),
                    np.full(n % 2, 400, np.float32))
        for n in range(NUM_IMAGES)
    )  # fmt: skip
    data = DetectionData(records, ("a",), (1,), "coco", "val")

    def detect(rank, _, batch, evaluator, losses, max_detections):
        evaluator.update(batch.tolist(), found_in(batch))
        if rank == 2:  # an image of another process, too, in which it found something else
            evaluator.update([1], found_in([1], shifted=True))
        losses.add(report([0.1 * (rank + 1)], [0.0]), num_images=1)

    def validate_share(rank, world_size=3):
        monkeypatch.setattr(module, "validate_batch", partial(detect, rank))
        batches = [torch.tensor([row]) for row in range(NUM_IMAGES)][rank::world_size]
        options = {"max_detections": None, "device": torch.device("cpu"), "tell": lambda: None}
        result, figures = validate(torch.nn.Identity(), batches, data, **options)
        return result.to_dict(), figures

    (alone, one), *shares = validate_share(0, 1), *in_processes(3, validate_share)
    assert 0 < one["val/ap"] < 1
    assert {result == alone for result, _ in shares} == {True}
    assert all(figures == shares[0][1] for _, figures in shares)
    assert {**shares[0][1], **{k: v for k, v in one.items() if "loss" in k}} == one
