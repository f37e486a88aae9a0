"""What one finds and the other does not, against loops and from boxes placed by hand."""

import numpy as np
import pytest

from coco_cases import data_of, found, random_case, record
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.difference import compare

SMALL, MEDIUM, LARGE, NOWHERE = [0, 0, 20, 20], [30, 0, 80, 50], [90, 90, 190, 190], [150, 10, 170, 30]


def evaluator_of(data, detections):
    evaluator = CocoEvaluator(data)
    evaluator.update(range(len(detections)), detections)
    return evaluator


def iou_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    own, other = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (own + other - width * height)


def naive_found(data, detections, score):
    """Image and rank of each object that is found, with loops."""
    taken = set()
    for image, (truth, each) in enumerate(zip(data.records, detections, strict=True)):
        rows = zip(each.scores.tolist(), each.boxes.tolist(), each.labels.tolist(), strict=True)
        for own, box, label in sorted(rows, key=lambda row: -row[0]):
            free = [
                (iou_of(box, truth.boxes[g].tolist()), g)
                for g in range(len(truth.labels))
                if truth.labels[g] == label and not truth.crowd[g] and (image, g) not in taken
            ]
            if own >= score and free and max(free)[0] >= 0.5:
                taken.add((image, max(free)[1]))
    return taken


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_by_class_equal_those_of_loops(seed):
    data, detections = random_case(seed)
    first, second = ([each[part::2] for each in detections] for part in (0, 1))
    difference = compare(evaluator_of(data, first), evaluator_of(data, second), score=0.3)
    in_a, in_b = naive_found(data, first, 0.3), naive_found(data, second, 0.3)
    expected = np.zeros((4, 4), int)
    for image, truth in enumerate(data.records):
        for g in np.flatnonzero(~truth.crowd):
            who = {(1, 1): 0, (1, 0): 1, (0, 1): 2, (0, 0): 3}[(image, g) in in_a, (image, g) in in_b]
            expected[truth.labels[g], who] += 1
    assert expected.sum(axis=0).min() > 0
    assert difference.by_class.tolist() == expected.tolist()
    assert difference.by_size.sum(axis=0).tolist() == expected.sum(axis=0).tolist()
    assert [side.confidence for side in difference.sides] == [0.3, 0.3]


def test_images_marks_and_the_sentence_by_hand():
    data = data_of(
        [
            record([SMALL, MEDIUM], [0, 0], image_id=1),
            record([SMALL, MEDIUM, LARGE], [0, 1, 1], image_id=2),
            record([SMALL, LARGE], [0, 1], image_id=3, crowd=[False, True]),
        ],
        ["cat", "dog"],
    )
    a = evaluator_of(
        data,
        [
            found([SMALL, MEDIUM], [0.9, 0.9], [0, 0]),
            found([SMALL, NOWHERE], [0.9, 0.9], [0, 1]),
            found([SMALL, LARGE], [0.9, 0.9], [0, 1]),
        ],
    )
    b = evaluator_of(
        data,
        [
            found([MEDIUM], [0.9], [0]),
            found([SMALL, MEDIUM, LARGE, NOWHERE], [0.9, 0.9, 0.9, 0.1], [0, 1, 1, 0]),
            found([SMALL], [0.9], [0]),
        ],
    )
    difference = compare(a, b)
    assert difference.by_class.tolist() == [[3, 1, 0, 0], [0, 0, 2, 0]]  # the crowd is nobody's
    assert difference.by_size.tolist() == [[2, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]]
    assert [side.num_false for side in difference.sides] == [1, 0]  # B's own false one scores too little
    assert [(image.path, image.counts) for image in difference.images] == [
        ("2.jpg", (1, 0, 2, 0)), ("1.jpg", (1, 1, 0, 0)),
    ]  # fmt: skip
    of_a, of_b = difference.images[0].marks
    assert [(mark.kind, mark.label, mark.box) for mark in of_a] == [
        ("right", 0, tuple(SMALL)), ("false", 1, tuple(NOWHERE)), ("missed", 1, tuple(MEDIUM)),
        ("missed", 1, tuple(LARGE)),
    ]  # fmt: skip
    assert [mark.kind for mark in of_b] == ["right"] * 3
    assert [mark.kind for mark in difference.images[1].marks[1]] == ["right", "missed"]
    ap_a, ap_b = (side.result.ap for side in difference.sides)
    assert difference.summary() == (
        f"Of 6 objects both find 3, A alone 1, B alone 2, and neither 0; B is ahead by {ap_b - ap_a:.3f} AP "
        f"({ap_a:.3f} and {ap_b:.3f}). A has 1 false detection, B 0. They differ most in dog (B finds 2 more) and "
        "small objects (A finds 1 more)."
    )
    assert difference.class_rows()[1] == ("dog", "2", "0", "0", "2", "0", "0.000", "1.000")
    assert [len(compare(a, b, limit=n).images) for n in (0, 1, 9)] == [0, 1, 2]
    assert compare(a, b, limit=1).num_images == 2


def test_the_same_detections_differ_in_nothing():
    data, detections = random_case(4)
    difference = compare(evaluator_of(data, detections), evaluator_of(data, detections))
    assert difference.counts[1:3].tolist() == [0, 0]
    assert difference.images == ()
    assert "neither is ahead in AP" in difference.summary()
    assert "differ most" not in difference.summary()
