"""One step of a training: what the detector is given of a batch, and the means over an epoch."""

from dataclasses import replace

import numpy as np
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.models.factory import create_model
from pyrafuse.training.step import Means, TrainingStep
from pyrafuse.training.watching import NeckWatch

SMALL = {
    "backbone": {"name": "resnet18", "width": 8},
    "necks": {"fpn": {"out_channels": 16}},
    "stages": {"head": {"channels": 16}, "sampler": {"number": 16}},
}


def test_padding_is_black_once_normalised_and_no_place_to_learn_from(monkeypatch):
    torch.manual_seed(0)
    detector = create_model("faster_rcnn", num_classes=2, **SMALL)
    mean, std = (0.48, 0.455, 0.406), (1 / 255, 1 / 255, 1 / 255)
    bgr = Preprocessing(size=(64, 96), fit="keep_ratio", mean=mean, std=std, bgr=True)
    detector.card = replace(detector.card, preprocessing=bgr)
    seen = {}
    forward = detector.forward

    def record(images, targets, *, sizes):
        seen["images"], seen["predictions"] = images, forward(images, targets, sizes=sizes)
        return seen["predictions"]

    monkeypatch.setattr(detector, "forward", record)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8)
    boxes = [torch.tensor([[4.0, 4, 30, 30]]), torch.tensor([[8.0, 8, 40, 30]])]
    targets = Targets.pad(boxes, [torch.zeros(1), torch.ones(1)])
    batch = Batch(torch.from_numpy(pixels), targets, torch.arange(2), ((64, 96), (48, 60)))
    assert TrainingStep(detector, NeckWatch())(batch)["train/loss"].isfinite()

    images, regions = seen["images"], seen["predictions"].stages[0].regions
    assert (images[1, :, 48:] == 0).all()
    assert (images[1, :, :, 60:] == 0).all()
    assert (images[0, :, 48:] != 0).any()
    assert (regions.boxes[1] <= torch.tensor([60, 48, 60, 48])).all()
    assert (regions.boxes[0] > torch.tensor([60, 48, 60, 48])).any()


def test_means_are_over_images_also_of_what_is_missing_in_some_batches():
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(2)}, num_images=3)
    means.add({"a": torch.tensor(5.0, requires_grad=True), "b": torch.tensor(4)}, num_images=1)
    means.add({"a": torch.tensor(8.0, dtype=torch.bfloat16)}, num_images=4)
    assert means.compute() == {"a": (3 + 5 + 32) / 8, "b": (6 + 4) / 4}
    assert Means().compute() == {}
