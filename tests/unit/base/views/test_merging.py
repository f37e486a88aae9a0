"""Detections of several views put together: against plain loops, and worked by hand at the borders of tiles."""

import numpy as np
import pytest

from pyrafuse.base.views.merging import MERGE_IOU, merge, touching_pairs

SIZE = (100, 200)
WHOLE = (0, 0, 200, 100)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def random_boxes(seed, count=120, num_views=3):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 80, (count // 4, 2)).repeat(4, axis=0)[:count] + rng.normal(0, 2, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(15, 20, (count, 2))]).clip(1, 99)
    return boxes, rng.uniform(0.01, 1, count), rng.integers(0, 2, count), rng.integers(0, num_views, count)


@pytest.mark.parametrize("seed", range(5))
def test_touching_pairs_are_those_that_share_an_area(seed):
    boxes, _, labels, _ = random_boxes(seed, count=300)
    boxes[::7] = boxes[::7][:, [0, 1, 0, 1]]  # without area
    shared = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) > np.maximum(boxes[:, None, :2], boxes[:, :2])
    is_pair = np.triu(shared.all(axis=2) & (labels[:, None] == labels), 1)
    expected = set(zip(*(rows.tolist() for rows in np.nonzero(is_pair)), strict=True))
    found = list(zip(*(rows.tolist() for rows in touching_pairs(boxes, labels)), strict=True))
    assert len(found) == len(set(found)) > 300
    assert set(found) >= expected
    assert {pair for pair in found if iou(boxes[pair[0]], boxes[pair[1]]) > 0} == expected


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_what_no_better_one_of_another_view_covers(seed):
    boxes, scores, labels, views = random_boxes(seed)
    kept = []
    for row in np.argsort(-scores):
        if not any(
            labels[row] == labels[other] and views[row] != views[other] and iou(boxes[row], boxes[other]) > MERGE_IOU
            for other in kept
        ):
            kept.append(int(row))
    assert len(kept) < 100
    found = merge(boxes, scores, labels, views, [WHOLE] * 3, SIZE, method="nms")
    assert found.rows.tolist() == kept
    assert np.array_equal(found.boxes, boxes[kept])
    assert np.array_equal(found.scores, scores[kept])


@pytest.mark.parametrize("seed", range(5))
def test_fusion_is_that_of_the_paper_with_one_box_of_a_view_at_most(seed):
    boxes, scores, labels, views = random_boxes(seed)
    clusters = []  # of rows
    fused = []
    for row in np.argsort(-scores):
        overlaps = [
            iou(box, boxes[row]) * (labels[rows[0]] == labels[row]) * (views[row] not in views[rows])
            for rows, box in zip(clusters, fused, strict=True)
        ]
        if overlaps and max(overlaps) > MERGE_IOU:
            best = int(np.argmax(overlaps))
            clusters[best].append(int(row))
        else:
            best = len(clusters)
            clusters.append([int(row)])
            fused.append(None)
        rows = clusters[best]
        fused[best] = (boxes[rows] * scores[rows, None]).sum(axis=0) / scores[rows].sum()
    confidence = np.array([scores[rows].mean() * min(len(rows), 3) / 3 for rows in clusters])
    order = np.argsort(-confidence, kind="stable")
    assert max(map(len, clusters)) == 3
    found = merge(boxes, scores, labels, views, [WHOLE] * 3, SIZE, method="wbf")
    assert found.rows.tolist() == [clusters[i][0] for i in order]
    np.testing.assert_allclose(found.boxes, np.stack(fused)[order], rtol=1e-12)
    np.testing.assert_allclose(found.scores, confidence[order], rtol=1e-12)


TILES = [(0, 0, 120, 100), (80, 0, 200, 100)]
"""Two tiles that share the pixels from 80 to 120."""


def merged(*found, parts=TILES, method="nms"):
    """``found`` are rows of a view, a score, a label and a box; gives (score, label, box) of each object."""
    views, scores, labels, boxes = (np.array(column) for column in zip(*found, strict=True))
    result = merge(boxes.astype(float), scores.astype(float), labels, views, parts, SIZE, method=method)
    return [
        (round(float(score), 3), int(labels[row]), tuple(map(float, box)))
        for row, box, score in zip(result.rows, result.boxes, result.scores, strict=True)
    ]


class TestBorders:
    WHOLE = (0, 0.6, 0, (60, 10, 110, 40))
    PART = (1, 0.9, 0, (80, 10, 110, 40))

    def test_a_part_is_left_out_where_another_tile_has_the_whole_object(self):
        assert merged(self.WHOLE, self.PART) == [(0.9, 0, (60, 10, 110, 40))]

    def test_a_part_of_another_class_or_place_stays(self):
        other = (1, 0.9, 1, (80, 10, 110, 40))
        assert [label for _, label, _ in merged(self.WHOLE, other)] == [1, 0]
        assert len(merged(self.WHOLE, (1, 0.9, 0, (80, 50, 110, 80)))) == 2
        assert len(merged(self.WHOLE, (1, 0.9, 0, (80, 10, 110, 90)))) == 2  # where both tiles look, they differ

    @pytest.mark.parametrize("method", ["nms", "wbf"])
    def test_parts_of_one_object_are_joined(self, method):
        left, right = (0, 0.5, 0, (20, 10, 119.5, 40)), (1, 0.8, 0, (80.5, 12, 190, 42))
        assert merged(left, right, method=method) == [(0.8, 0, (20, 10, 190, 42))]

    def test_parts_are_joined_over_several_tiles(self):
        tiles = [(0, 0, 100, 100), (50, 0, 150, 100), (100, 0, 200, 100)]
        found = [(0, 0.5, 0, (10, 10, 100, 40)), (1, 0.9, 0, (50, 10, 150, 40)), (2, 0.7, 0, (100, 10, 180, 40))]
        worse = (1, 0.2, 0, (50, 12, 150, 41))  # in the same tile: it does not make the object larger
        assert merged(*found, worse, parts=tiles) == [(0.9, 0, (10, 10, 180, 40))]

    def test_whole_objects_side_by_side_stay_two(self):
        assert len(merged((0, 0.9, 0, (20, 10, 90, 40)), (1, 0.8, 0, (82, 10, 180, 40)))) == 2

    def test_a_view_of_the_whole_image_replaces_parts(self):
        found = [(0, 0.9, 0, (20, 10, 120, 40)), (1, 0.8, 0, (80, 10, 190, 40)), (2, 0.7, 0, (20, 10, 190, 40))]
        assert merged(*found, parts=[*TILES, WHOLE]) == [(0.9, 0, (20, 10, 190, 40))]


@pytest.mark.parametrize("seed", range(2))
def test_one_view_stays_as_it_is(seed):
    boxes, scores, labels, views = random_boxes(seed)
    for method in ("nms", "wbf"):
        found = merge(boxes, scores, labels, 0 * views, [WHOLE], SIZE, method=method)
        assert np.array_equal(found.rows, np.argsort(-scores, kind="stable"))
        np.testing.assert_allclose(found.boxes, boxes[found.rows], rtol=1e-12)
        np.testing.assert_allclose(found.scores, scores[found.rows], rtol=1e-12)


def test_fusion_counts_the_views_that_see_the_place():
    alone, shared = (0, 0.6, 0, (10, 10, 50, 50)), (0, 0.6, 0, (90, 10, 110, 30))
    assert merged(alone, shared, method="wbf") == [(0.6, 0, (10, 10, 50, 50)), (0.3, 0, (90, 10, 110, 30))]


def test_nothing_found():
    empty = np.zeros(0, np.int64)
    for method in ("nms", "wbf"):
        assert len(merge(np.zeros((0, 4)), np.zeros(0), empty, empty, TILES, SIZE, method=method).rows) == 0
