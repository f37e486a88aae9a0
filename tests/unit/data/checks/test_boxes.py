"""Boxes that may be wrong, in flat arrays: the same as by a loop over all pairs, and by hand."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from pyrafuse.data.checks.boxes import Objects, find_odd, find_pairs, find_stacked, find_tiny


def test_pairs_are_those_of_a_loop_over_all(make_data):
    rng = np.random.default_rng(0)
    images = []
    for _ in range(20):
        corners = rng.uniform(0, 300, (30, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(1, 200, (30, 2))], axis=1)
        boxes[15:] = boxes[:15] + rng.normal(0, 4, (15, 4))  # near copies, better and worse ones
        images.append([(int(rng.integers(2)), box, rng.random() < 0.1) for box in np.sort(boxes.reshape(-1, 2, 2), 1)
                       .reshape(-1, 4)])  # fmt: skip
    objects = Objects.of(make_data(images).records)
    overlaps = box_iou(*[torch.from_numpy(objects.boxes)] * 2).numpy()
    is_one = (objects.images[:, None] == objects.images) & (objects.labels[:, None] == objects.labels)
    is_one &= ~objects.crowd[:, None] & ~objects.crowd
    for least in (0.5, 0.9):
        expected = np.argwhere(np.triu(is_one & (overlaps > least), 1))
        pairs, found = find_pairs(objects, least=least)
        assert sorted(pairs.tolist()) == expected.tolist()
        assert len(expected) > 20
        assert found == pytest.approx(overlaps[pairs[:, 0], pairs[:, 1]])
        assert (np.diff(found) <= 0).all()


def test_boxes_on_each_other_are_told_once_a_pair(make_data):
    box, shifted, far = (10, 10, 110, 110), (12, 10, 112, 110), (30, 10, 130, 110)
    data = make_data([[(0, box), (0, shifted), (1, box), (0, far)], [(0, box)], [(1, box), (1, box, True)]])
    (problem,) = find_stacked(Objects.of(data.records), data.names)
    assert (problem.severity, problem.record, problem.file.name) == ("warning", "image 0", "0.jpg")
    assert problem.message == (
        "two boxes of the class cat overlap by 0.96 (IoU): [10, 10, 110, 110] (xyxy) and [12, 10, 112, 110] (xyxy)"
    )
    assert problem.evidence is not None
    assert problem.evidence.boxes == ((10, 10, 110, 110), (12, 10, 112, 110))
    assert problem.to_dict()["boxes"] == [[10, 10, 110, 110], [12, 10, 112, 110]]


def test_odd_sizes_and_ratios_are_measured_within_the_class(make_data):
    usual = [[(label, (100, 100, 100 + side, 100 + side + k % 5)) for label, side in ((0, 40), (1, 200))]
             for k in range(30)]  # fmt: skip
    odd = [
        (0, (100, 100, 400, 400)),
        (1, (100, 100, 140, 140)),
        (0, (100, 100, 260, 110)),
        (0, (100, 100, 400, 400), True),
    ]
    data = make_data([*usual, odd, [(0, (0, 100, 160, 110))]])  # the last one is cut by the image's edge
    problems = find_odd(Objects.of(data.records), data.names)
    assert [(p.kind, p.evidence.boxes[0][2:]) for p in problems] == [
        ("box of unusual size", (400, 400)),
        ("box of unusual size", (140, 140)),
        ("box of unusual side ratio", (260, 110)),
    ]
    assert {p.severity for p in problems} == {"hint"}
    # 300 of the root of 1000 x 500
    assert problems[0].message == (
        "cat, 300 x 300 px at [100, 100, 400, 400] (xyxy): 42.4 % of the image's side; the median of its class is 5.8 %"
    )
    assert problems[2].message.endswith(": 16 times as wide as high; the median of its class is 0.95")
    few = make_data([*usual[:16], odd])
    assert find_odd(Objects.of(few.records), few.names) == []


def test_no_objects_and_boxes_without_a_side(make_data):
    for images in ([[]], [[(0, (5, 5, 5, 9)), (0, (5, 5, 5, 9))]]):
        data = make_data(images)
        objects = Objects.of(data.records)
        assert find_stacked(objects, data.names) == find_odd(objects, data.names) == []
        assert len(find_tiny(objects)) == len(images[0]) // 2
