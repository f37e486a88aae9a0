"""One step of a training: what the detector is given of a batch."""

from dataclasses import replace

import numpy as np
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData
from pyrafuse.core.targets import Batch, Targets
from pyrafuse.models.factory import create_model
from pyrafuse.training.module import DetectionModule
from pyrafuse.training.settings import Recipe

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
    data = DetectionData((), ("a", "b"), (1, 2), "coco", "val")
    module = DetectionModule(detector, Recipe(), val_data=data, steps_per_epoch=1, recipe_values={})
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)

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
    assert module.training_step(batch, 0).isfinite()

    images, regions = seen["images"], seen["predictions"].stages[0].regions
    assert (images[1, :, 48:] == 0).all()
    assert (images[1, :, :, 60:] == 0).all()
    assert (images[0, :, 48:] != 0).any()
    assert (regions.boxes[1] <= torch.tensor([60, 48, 60, 48])).all()
    assert (regions.boxes[0] > torch.tensor([60, 48, 60, 48])).any()
