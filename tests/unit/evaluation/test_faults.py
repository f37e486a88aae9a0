"""The images with the most mistakes, from boxes placed by hand."""

from pathlib import Path

import numpy as np
import torch

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.result import EvaluationResult

SPOTS = np.asarray([[0, 0, 20, 20], [30, 0, 50, 20], [60, 0, 80, 20], [0, 40, 20, 60]], np.float32)


def record(name, labels, crowd=()):
    count = len(labels)
    return ImageRecord(
        Path(name), name, 100, 80, SPOTS[:count], np.asarray(labels, np.int64),
        np.asarray([i in crowd for i in range(count)], bool), np.full(count, 400, np.float32),
    )  # fmt: skip


def detections(*rows):
    """Of (spot, label, score)."""
    boxes = torch.from_numpy(SPOTS[[spot for spot, *_ in rows]].reshape(-1, 4))
    labels = torch.tensor([label for _, label, _ in rows], dtype=torch.int64)
    return Detections(boxes, torch.tensor([score for *_, score in rows], dtype=torch.float32), labels, labels)


def judge(records, found, names=("cat", "dog")):
    evaluator = CocoEvaluator(DetectionData(tuple(records), names, tuple(range(len(names))), "coco", "val"))
    evaluator.update(range(len(records)), found)
    return evaluator.compute()


def test_marks_say_what_each_box_was():
    # every score is equal, so that all detections count
    result = judge(
        [record("fine.jpg", [0, 1]), record("crowd.jpg", [0, 0], crowd=(1,)), record("wrong.jpg", [0, 1, 0])],
        [
            detections((0, 0, 0.9), (1, 1, 0.9)),
            detections((0, 0, 0.9), (0, 0, 0.9), (1, 0, 0.9)),
            detections((0, 0, 0.9), (1, 0, 0.9), (3, 1, 0.9)),
        ],
    )
    wrong, crowd = result.worst
    assert (wrong.path, crowd.path) == ("wrong.jpg", "crowd.jpg")
    assert [(mark.kind, mark.label) for mark in wrong.found] == [("right", 0), ("wrong class", 0), ("false", 1)]
    assert [mark.kind for mark in wrong.objects] == ["right", "wrong class", "missed"]
    assert wrong.found[1].box == (30, 0, 50, 20)
    assert wrong.found[1].score == np.float32(0.9)
    assert wrong.counts() == {"right": 1, "missed": 1, "false": 1, "wrong class": 1}
    assert [mark.kind for mark in crowd.found] == ["right", "false"]  # what lies in the crowd is not judged
    assert [mark.kind for mark in crowd.objects] == ["right", "crowd"]
    assert result.confusion.tolist() == [[3, 0, 1], [1, 1, 0], [1, 1, 0]]


def test_of_equal_mistakes_the_image_with_fewer_right_ones_is_first_and_a_dozen_are_kept():
    records = [record(f"{i}.jpg", [0, 0]) for i in range(15)]
    found = [detections((0, 0, 0.9)) for _ in range(14)]
    result = judge([*records[:14], record("none.jpg", [0])], [*found, detections()], names=("cat",))
    assert [image.path for image in result.worst] == ["none.jpg", *(f"{i}.jpg" for i in range(11))]


def test_where_nothing_was_found_all_objects_are_missed():
    result = judge([record("a.jpg", [0, 1]), record("b.jpg", [])], [detections(), detections()])
    (image,) = result.worst
    assert image.counts() == {"right": 0, "missed": 2, "false": 0, "wrong class": 0}
    assert result.confusion.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    assert judge([record("b.jpg", [])], [detections()]).worst == ()


def test_they_come_back_from_a_checkpoint_and_an_older_one_has_none():
    result = judge([record("a.jpg", [0, 1])], [detections((0, 0, 0.9), (3, 1, 0.8))])
    assert result.worst
    plain = result.to_dict(with_curves=True)
    assert EvaluationResult.from_dict(plain).worst == result.worst
    del plain["worst"]
    assert EvaluationResult.from_dict(plain).worst == ()
    assert "worst" not in result.to_dict()
