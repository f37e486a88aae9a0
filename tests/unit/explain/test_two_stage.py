"""Detectors that look twice explained: the same regions, whatever a level's absence does to the pyramid."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.explain.ablation import decode_pyramid, hold_regions
from pyrafuse.explain.fusion import explain_image
from pyrafuse.models.factory import create_model


@pytest.fixture(scope="module", params=["faster_rcnn", "cascade_rcnn"])
def detector(request):
    torch.manual_seed(0)
    detector = create_model(
        request.param,
        num_classes=3,
        backbone={"name": "resnet18", "width": 8},
        necks={"fpn": {"out_channels": 16}},
        stages={"head": {"channels": 32}},
        postprocess={"max_detections": 20, "nms_iou": 0.99},
    ).eval()
    for stage in detector.stages:  # boxes and scores that differ
        torch.nn.init.normal_(stage.head.classes.weight, std=0.03)
        torch.nn.init.normal_(stage.head.deltas.weight, std=0.05)
    detector.card = replace(detector.card, names=("a", "b", "c"), preprocessing=Preprocessing(size=(96, 96)))
    return detector


@torch.no_grad()
def test_detections_are_found_again_among_the_candidates(detector):
    images = torch.randn(1, 3, 96, 96)
    pyramid = detector.neck(detector.backbone(images))
    held = hold_regions(detector, pyramid, (96, 96))
    candidates = decode_pyramid(held, pyramid)
    torch.testing.assert_close(candidates.scores, detector.decode(images).scores)
    (found,) = detector.detect(images)
    assert len(found) == 20
    torch.testing.assert_close(candidates.scores[0, found.rows, found.labels], found.scores)

    other = tuple(torch.zeros_like(x) for x in pyramid)
    levels = decode_pyramid(held, other).levels
    if len(detector.stages) == 1:
        assert torch.equal(levels, candidates.levels)
    assert decode_pyramid(held, other).scores.shape == candidates.scores.shape


def test_an_image_is_explained(detector):
    photo = np.random.default_rng(0).integers(0, 255, (96, 120, 3), np.uint8)
    explained = explain_image(detector, photo, score=0)
    assert explained.strides == (4, 8, 16, 32, 64)
    assert explained.ablation.score_changes.shape == (20, 4)
    np.testing.assert_allclose(explained.ablation.shares.sum(axis=1), 1, rtol=1e-4)
    assert len(explained.cams) > 0
    assert all(np.isfinite(cam.classification).all() for cam in explained.cams)
    assert max(cam.regression.max() for cam in explained.cams) == pytest.approx(1)
