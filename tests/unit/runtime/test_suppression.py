import numpy as np
import pytest
import torch

from pyrafuse.ops.suppression import class_aware_nms
from pyrafuse.runtime.suppression import suppress


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("iou", [0.0, 0.3, 0.65])
def test_what_torch_keeps_is_kept(seed, iou):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 200))
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 40, (count, 2))]).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    labels = rng.integers(0, 3, count)
    kept = suppress(boxes, scores, labels, iou=iou, most=0, most_candidates=1000)
    expected = class_aware_nms(*map(torch.from_numpy, (boxes, scores, labels)), iou=iou)
    assert kept.tolist() == expected.tolist()
    assert suppress(boxes, scores, labels, iou=iou, most=5, most_candidates=1000).tolist() == expected.tolist()[:5]


def test_of_a_chain_every_second_box_is_kept():
    starts = np.arange(0, 60, 5, dtype=np.float32)  # each overlaps the next by 1/3, the one after that by nothing
    boxes = np.stack([starts, np.zeros(12), starts + 10, np.full(12, 10)], axis=1).astype(np.float32)
    scores = np.linspace(1, 0.1, 12, dtype=np.float32)
    labels = np.zeros(12, np.int64)
    assert suppress(boxes, scores, labels, iou=0.3, most=0, most_candidates=100).tolist() == [0, 2, 4, 6, 8, 10]
    assert suppress(boxes, scores, labels, iou=0.4, most=0, most_candidates=100).tolist() == list(range(12))
    assert suppress(boxes, scores, labels, iou=0.3, most=0, most_candidates=3).tolist() == [0, 2]


def test_boxes_without_area_cover_nothing():
    boxes = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [5, 5, 2, 2]], np.float32)
    kept = suppress(boxes, np.ones(3, np.float32), np.zeros(3, np.int64), iou=0.0, most=0, most_candidates=9)
    assert kept.tolist() == [0, 1, 2]
