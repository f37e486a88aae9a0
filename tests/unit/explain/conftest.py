"""Detectors of random weights that find something in anything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.models.factory import create_model
from pyrafuse.visualization import explanations

NAMES = ("fish", "shark", "ray")


def build(name: str, fit: str = "letterbox"):
    """A detector that answers with up to 40 boxes at score 0."""
    torch.manual_seed(0)
    detector = create_model(name, num_classes=3, postprocess={"max_detections": 40})
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector(torch.randn(4, 3, 96, 96))  # fresh statistics would let every feature fade to zero
    detector.eval()
    detector.card = replace(detector.card, names=NAMES, preprocessing=Preprocessing(size=(96, 96), fit=fit))
    return detector


@pytest.fixture(scope="session")
def asff():
    """Fuses with weights; keeps the aspect ratio."""
    return build("yolov3_asff_small")


@pytest.fixture(scope="session")
def plain():
    """Fuses without weights."""
    return build("yolov3_small")


@pytest.fixture(scope="session")
def bifpn():
    """Fuses with one weight a source: 1, 2, 3, normalised."""
    detector = build("efficientdet_d0")
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            if name.endswith("edge_weights"):
                parameter.copy_(torch.arange(1.0, 1 + len(parameter)))
    return detector


@pytest.fixture(scope="session")
def photo():
    """(60, 120, 3): of 96 x 96 network pixels it takes up the upper 48 rows, one and a half cells at stride 32."""
    return np.random.default_rng(0).integers(0, 255, (60, 120, 3), np.uint8)


@pytest.fixture
def blank_pictures(monkeypatch):
    """Empty figures, for tests of what surrounds them: a real one takes a second."""
    monkeypatch.setattr(explanations, "draw_fusion", lambda _: Figure(figsize=(1, 1)))
    monkeypatch.setattr(explanations, "draw_cams", lambda _: None)
