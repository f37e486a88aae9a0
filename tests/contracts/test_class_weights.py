"""Weights of classes act on the class loss of every criterion, on its positives, and on nothing else."""

from dataclasses import replace

import pytest
import torch

from pyrafuse.core.targets import Targets
from pyrafuse.models.factory import create_model

SMALL = {"backbone": {"name": "resnet18", "width": 8}, "necks": {"fpn": {"out_channels": 16}}}
DENSE = {**SMALL, "head": {"channels": 16, "num_convs": 1}}
MODELS = {
    "retinanet": DENSE,
    "ga_retinanet": DENSE,
    "yolov3_small": {"backbone": {"width": 0.25}},
    "yolov3_plain": {"backbone": {"width": 0.25, "depths": (1,) * 5}, "necks": {"yolo_fpn": {"width": 1 / 8}}},
    "faster_rcnn": {**SMALL, "stages": {"head": {"channels": 16}}},
}
"""A model of each criterion."""


@pytest.mark.parametrize("model", MODELS)
def test_the_class_loss_of_objects_is_weighed(model):
    torch.manual_seed(0)
    detector = create_model(model, num_classes=3, **MODELS[model]).eval()
    boxes = torch.tensor([[4.0, 4.0, 30.0, 28.0], [20.0, 24.0, 60.0, 62.0]])
    targets = Targets.pad([boxes], [torch.tensor([0, 2])])

    with torch.no_grad():
        predictions = detector(torch.randn(1, 3, 64, 64), targets)

    def losses(*weights):
        given = replace(targets, class_weights=torch.tensor([weights]) if weights else None)
        torch.manual_seed(1)
        with torch.no_grad():
            return detector.criterion(predictions, given)

    plain, ones, none, thrice = losses(), losses(1.0, 1.0), losses(0.0, 1.0), losses(3.0, 1.0)
    torch.testing.assert_close(plain, ones, rtol=0, atol=0)
    for name, value in plain.items():
        if name == "classification":
            assert none[name] < value
            torch.testing.assert_close(thrice[name] - value, 2 * (value - none[name]))
        else:
            torch.testing.assert_close(thrice[name], value, rtol=0, atol=0)
