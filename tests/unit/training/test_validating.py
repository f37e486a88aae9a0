"""Losses of the validation images: their values, and that they leave no trace in the training."""

import pytest
import torch

from pyrafuse.core.losses import LevelLosses
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.normalizing import divisor_over_processes, mean_over_processes, sum_over_processes
from pyrafuse.losses.harmonizing import HarmonizedClassification
from pyrafuse.models.factory import create_model
from pyrafuse.training.validating import MeanLosses, validating

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
    assert losses.means() == {}
    losses.add(report([1.0, 2.0], [0.5, 0.5]), num_images=3)
    losses.add(report([7.0, 0.0], [5.0, 0.0]), num_images=1)
    assert losses.means() == {"loss": 6.0, "loss_box": (3 * 3 + 7) / 4, "loss_class": (3 * 1 + 5) / 4}


def test_processes_put_their_sums_together():
    one, other, idle = MeanLosses(), MeanLosses(), MeanLosses()
    one.add(report([3.0], [1.0]), num_images=3)
    other.add(report([7.0], [5.0]), num_images=1)
    one.merge(other.sums())
    one.merge(idle.sums())
    assert one.means() == {"loss": 6.0, "loss_box": 4.0, "loss_class": 2.0}
    idle.merge(other.sums())
    assert idle.means() == {"loss": 12.0, "loss_box": 7.0, "loss_class": 5.0}


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
