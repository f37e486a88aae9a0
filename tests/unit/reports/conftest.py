"""Evaluations of images made on the spot, with as many classes as wanted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.evaluation.coco import CocoEvaluator

BOXES = np.asarray([[5, 5, 45, 45], [55, 5, 95, 45], [5, 50, 45, 75]], np.float32)


@pytest.fixture
def evaluation(evaluator):
    """What `evaluator` finds."""
    return lambda *names: evaluator(*names).compute()


@pytest.fixture
def evaluator(tmp_path):
    """Of two images: all is right in the first; in the second one object is, one has a wrong class, one is missed."""

    def build(names=("cat", "dog", "cow")):
        records = []
        for name in ("fine.png", "faulty.png"):
            Image.new("RGB", (100, 80), "white").save(tmp_path / name)
            labels = np.arange(3) % len(names)
            records.append(
                ImageRecord(
                    Path(tmp_path / name), name, 100, 80, BOXES, labels, np.zeros(3, bool), np.full(3, 1600, np.float32)
                )
            )
        evaluator = CocoEvaluator(DetectionData(tuple(records), tuple(names), tuple(range(len(names))), "coco", "val"))
        evaluator.update([0, 1], [found((0, 0), (1, 1), (2, 2), names=names), found((0, 0), (1, 0), names=names)])
        return evaluator

    return build


def found(*rows, names):
    boxes = torch.from_numpy(BOXES[[spot for spot, _ in rows]])
    labels = torch.tensor([label % len(names) for _, label in rows])
    return Detections(boxes, torch.full((len(rows),), 0.75), labels, labels)
