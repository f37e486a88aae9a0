"""A training says that it starts from averaged weights."""

from collections import OrderedDict

import torch

from pyrafuse.models.factory import create_model
from pyrafuse.training.preparing import take_over


def test_averaged_weights_are_taken_and_told_of(tmp_path):
    detector = create_model("yolov3_small", num_classes=1, backbone_options={"width": 0.25})
    live = OrderedDict((f"detector.{key}", value.clone()) for key, value in detector.state_dict().items())
    mean = OrderedDict((f"module.{key}", torch.full_like(value, 2)) for key, value in live.items())
    torch.save({"state_dict": live, "model_ema": mean}, tmp_path / "a.pth")
    said = take_over(detector, tmp_path / "a.pth").splitlines()
    assert said[0].startswith(f"{len(live)} of {len(live)} entries taken from ")
    note = "averaged weights (EMA) under model_ema are taken instead of the live ones under state_dict"
    assert said[1:] == [f"{tmp_path / 'a.pth'}: {note}"]
    assert all(bool((value == 2).all()) for value in detector.state_dict().values())
