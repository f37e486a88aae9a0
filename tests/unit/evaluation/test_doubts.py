"""Annotations that a detector contradicts, one image by hand."""

from pathlib import Path

import numpy as np
import pytest

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.doubts import find_doubts
from pyrafuse.evaluation.matching import Truth


def evaluator_of(objects, found):
    """Of one image: objects as (label, xyxy, is_crowd), detections as (score, label, xyxy)."""
    boxes = np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4)
    record = ImageRecord(
        Path("a.jpg"), 1, 1000, 1000, boxes, np.array([label for label, *_ in objects], np.int64),
        np.array([crowd for *_, crowd in objects], np.bool_), np.ones(len(objects), np.float32),
    )  # fmt: skip
    evaluator = CocoEvaluator(DetectionData((record,), ("cat", "dog"), (1, 2), "coco", "val"))
    evaluator.update(
        [0],
        [
            Detections(
                boxes=np.array([box for *_, box in found], np.float32).reshape(-1, 4),
                scores=np.array([score for score, *_ in found], np.float32),
                labels=np.array([label for _, label, _ in found], np.int64),
                levels=np.zeros(len(found), np.int64),
            )
        ],
    )
    return evaluator, Truth.of((record,))


OBJECTS = [
    (0, (0, 0, 100, 100), False),
    (0, (200, 0, 300, 100), False),
    (1, (400, 0, 500, 100), False),
    (1, (600, 0, 700, 100), True),
    (0, (0, 200, 8, 208), False),
]
FOUND = [
    (0.9, 0, (0, 0, 100, 100)),  # right
    (0.8, 1, (1, 1, 99, 99)),  # on an object that is found under its own name
    (0.85, 1, (202, 0, 300, 100)),  # of another class
    (0.7, 1, (200, 0, 300, 100)),  # the same again
    (0.95, 1, (400, 0, 560, 100)),  # a loose box, IoU 100 / 160
    (0.99, 0, (600, 0, 690, 90)),  # in a crowd
    (0.6, 0, (0, 202, 8, 210)),  # two pixels off, of eight
    (0.75, 1, (800, 800, 900, 900)),  # nothing there
    (0.74, 0, (805, 800, 900, 900)),  # the same place
    (0.1, 0, (800, 100, 900, 200)),  # not sure
]


def test_sure_detections_contradict_annotations():
    evaluator, truth = evaluator_of(OBJECTS, FOUND)
    doubts = find_doubts(evaluator, truth, least=0.5)
    assert [(d.kind, round(d.score, 2), d.label, d.object) for d in doubts] == [
        ("missing", 0.75, 1, -1),
        ("class", 0.85, 1, 1),
        ("loose", 0.95, 1, 2),
    ]
    assert [d.overlap for d in doubts] == pytest.approx([0, 0.98, 100 / 160], abs=1e-3)
    assert doubts[2].box == (400, 0, 560, 100)
    assert [d.kind for d in find_doubts(evaluator, truth, least=0.05)][:2] == ["missing", "missing"]


def test_annotations_as_they_are_found_are_not_doubted_and_a_blind_detector_doubts_nothing():
    right = [(0.9, label, box) for label, box, crowd in OBJECTS if not crowd]
    assert find_doubts(*evaluator_of(OBJECTS, right)) == ()
    assert find_doubts(*evaluator_of(OBJECTS, [(0.9, 0, (800, 800, 900, 900))])) == ()
    assert find_doubts(*evaluator_of(OBJECTS, [])) == ()
    assert find_doubts(*evaluator_of([], right)) == ()
