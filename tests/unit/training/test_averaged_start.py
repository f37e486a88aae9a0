"""A training says that it starts from averaged weights."""

from collections import OrderedDict
from dataclasses import replace

import torch

from pyrafuse.models.factory import create_model
from pyrafuse.training.starting import read_start, take_over


def test_averaged_weights_are_taken_and_told_of(tmp_path):
    detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25})
    detector.card = replace(detector.card, names=("cell",))
    live = OrderedDict((f"detector.{key}", value.clone()) for key, value in detector.state_dict().items())
    mean = OrderedDict((f"module.{key}", torch.full_like(value, 2)) for key, value in live.items())
    torch.save({"state_dict": live, "model_ema": mean}, tmp_path / "a.pth")
    start = read_start(tmp_path / "a.pth")
    assert take_over(detector, start).startswith(f"{len(live)} of {len(live)} entries taken from ")
    note = "averaged weights (EMA) under model_ema are taken instead of the live ones under state_dict"
    assert start.notes == (note,)
    assert all(bool((value == 2).all()) for value in detector.state_dict().values())
