"""Candidates of dense heads to detections, by hand."""

from dataclasses import replace

import pytest
import torch

from pyrafuse.core.predictions import AnchorGuides, Candidates, DenseGrid, DensePredictions
from pyrafuse.ops.coders import DeltaCoder
from pyrafuse.postprocess.dense import DensePostprocess, decode_dense

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 50, 50], [-20, -20, -5, 90]])
SCORES = torch.tensor([[0.9, 0.3], [0.8, 0.1], [0.2, 0.7], [0.6, 0.0]])
CANDIDATES = Candidates(boxes=BOXES[None], scores=SCORES[None], levels=torch.tensor([0, 0, 1, 1]))


def rows(found) -> list[tuple[int, int, float]]:
    places = {tuple(box): i for i, box in enumerate(BOXES.tolist())}
    return [
        (places[tuple(box)], label, round(score, 4))
        for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def test_every_class_that_scores():
    (found,) = DensePostprocess(score=0.25, nms_iou=0.5, multi_label=True)(CANDIDATES)
    assert rows(found) == [(0, 0, 0.9), (2, 1, 0.7), (3, 0, 0.6), (0, 1, 0.3)]
    assert found.levels.tolist() == [0, 1, 1, 0]
    assert found.rows.tolist() == [0, 2, 3, 0]
    assert found[1:3].rows.tolist() == [2, 3]


def test_a_score_at_the_threshold_does_not_pass_with_every_class():
    candidates = replace(CANDIDATES, scores=torch.tensor([[[0.5, 0.0], [0.0, 0.0], [0.0, 0.75], [0.0, 0.0]]]))
    assert [len(DensePostprocess(score=s, multi_label=True)(candidates)[0]) for s in (0.0, 0.5, 0.75)] == [2, 1, 0]
    assert [len(DensePostprocess(score=s)(candidates)[0]) for s in (0.5, 0.75)] == [2, 1]


def test_the_best_of_each_level():
    (found,) = DensePostprocess(score=0.05, nms_iou=0.95, multi_label=True, max_per_level=2)(CANDIDATES)
    assert rows(found) == [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.7), (3, 0, 0.6)]


def test_the_best_of_each_class():
    post = DensePostprocess(score=0.05, nms_iou=0.95, multi_label=True, max_pairs_per_class=2)
    (found,) = post(CANDIDATES)
    assert rows(found) == [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.7), (0, 1, 0.3)]
    (found,) = replace(post, max_pairs_per_class=4)(CANDIDATES)
    assert len(found) == 7
    (found,) = replace(post, max_pairs=3)(CANDIDATES)
    assert rows(found) == [(0, 0, 0.9), (1, 0, 0.8), (2, 1, 0.7)]
    (found,) = replace(post, score=0.0, multi_label=False, max_pairs_per_class=1)(CANDIDATES)
    assert rows(found) == [(0, 0, 0.9), (2, 1, 0.7)]


def test_the_best_of_all_levels_before_quality_multiplies():
    candidates = replace(CANDIDATES, quality=torch.tensor([[0.5, 0.1, 1.0, 1.0]]))
    (found,) = DensePostprocess(score=0.05, nms_iou=0.95, multi_label=True, max_pairs=3)(candidates)
    assert rows(found) == [(2, 1, 0.7), (0, 0, 0.45), (1, 0, 0.08)]


def test_quality_multiplies_what_passed():
    candidates = replace(CANDIDATES, quality=torch.tensor([[0.5, 1.0, 0.1, 1.0]]))
    (found,) = DensePostprocess(score=0.25, nms_iou=0.5, multi_label=True)(candidates)
    # the threshold saw 0.7 and 0.3; the second box now suppresses the first
    assert rows(found) == [(1, 0, 0.8), (3, 0, 0.6), (0, 1, 0.15), (2, 1, 0.07)]


def test_neighbours_vote_on_the_box_and_leave_its_score():
    (found,) = DensePostprocess(score=0.25, nms_iou=0.5, vote_iou=0.6)(CANDIDATES)
    bottom = (0.9 * 10 + 0.8 * 9) / 1.7
    torch.testing.assert_close(found.boxes[0], torch.tensor([0.0, 0, 10, bottom]))
    assert rows(replace(found, boxes=BOXES[[0, 2, 3]])) == [(0, 0, 0.9), (2, 1, 0.7), (3, 0, 0.6)]


def test_clipping():
    (found,) = DensePostprocess(score=0.65, nms_iou=0.5, clip=True)(CANDIDATES, [(40, 45)])
    assert found.boxes.tolist() == [[0, 0, 10, 10], [30, 30, 45, 40]]
    (found,) = DensePostprocess(score=0.55, nms_iou=0.5, clip=True)(CANDIDATES, [(40, 45)])
    assert len(found) == 2  # the one beside the image is gone
    (found,) = DensePostprocess(score=0.55, nms_iou=0.5, clip=True)(CANDIDATES)
    assert len(found) == 3


@pytest.mark.parametrize("multi_label", [True, False])
def test_nothing(multi_label):
    (found,) = DensePostprocess(score=0.99, max_per_level=5, clip=True, multi_label=multi_label)(CANDIDATES, [(9, 9)])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_decoding():
    grid = DenseGrid(BOXES[:2], torch.full((2,), 8.0), torch.zeros(2, dtype=torch.int64), (2,), ((1, 2),))
    predictions = DensePredictions(
        classes=torch.zeros(1, 2, 3), deltas=torch.zeros(1, 2, 4), quality=torch.tensor([[0.0, 9.0]]), grid=grid
    )
    candidates = decode_dense(predictions, coder=DeltaCoder())
    assert candidates.boxes.tolist() == [BOXES[:2].tolist()]
    assert candidates.scores.unique().tolist() == [0.5]
    assert candidates.quality is not None
    assert candidates.quality[0, 0] == 0.5
    guides = AnchorGuides(
        anchors=BOXES[None, 2:], shapes=torch.zeros(1, 2, 2), locations=torch.tensor([[-9.0, 9.0]]), least_location=0.01
    )
    candidates = decode_dense(replace(predictions, quality=None, guides=guides), coder=DeltaCoder())
    assert candidates.boxes.tolist() == [BOXES[2:].tolist()]
    assert candidates.scores.tolist() == [[[0] * 3, [0.5] * 3]]
    assert candidates.quality is None


def test_each_image_is_clipped_at_its_own_size():
    two = Candidates(
        boxes=torch.tensor([[[0.0, 0.0, 30.0, 30.0]]]).expand(2, 1, 4),
        scores=torch.ones(2, 1, 1),
        levels=torch.zeros(1),
    )
    first, second = DensePostprocess(clip=True)(two, [(20, 25), (40, 10)])
    assert first.boxes.tolist() == [[0, 0, 25, 20]]
    assert second.boxes.tolist() == [[0, 0, 10, 30]]


class TestForms:
    """Soft suppression and joint qualities, worked by hand."""

    BOXES = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 4], [20, 20, 29, 29]]])
    LEVELS = torch.tensor([0, 0, 1])

    def test_soft(self):
        scores = torch.tensor([[[0.9, 0.2], [0.8, 0.7], [0.0, 0.6]]])
        postprocess = DensePostprocess(
            score=0.1, multi_label=True, suppression="soft", nms_iou=0.3, pixel_offset=1.0, max_per_class=2
        )
        (found,) = postprocess(Candidates(self.BOXES, scores, self.LEVELS))
        # with a pixel more, 50 of 100 pixels are shared: the second box of class 0 keeps half of its score; of class 1
        # the best covers the first, whose score falls to 0.1 and which is the third
        assert found.labels.tolist() == [0, 1, 1, 0]
        assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.4])
        # where a pixel of the image is ten of the network's, 19 x 19 and 19 x 14
        (found,) = postprocess(Candidates(self.BOXES, scores, self.LEVELS), None, [(10.0, 10.0)])
        assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.8 * (1 - 14 / 19)])

    def test_joint_quality(self):
        scores = torch.tensor([[[0.64], [0.16], [0.04]]])
        quality = torch.tensor([[0.25, 0.01, 1.0]])
        (found,) = DensePostprocess(score=0.2, joint_quality=True)(Candidates(self.BOXES, scores, self.LEVELS, quality))
        assert found.scores.tolist() == pytest.approx([0.4, 0.2])
        assert found.levels.tolist() == [0, 1]

    def test_no_such_suppression(self):
        with pytest.raises(ValueError, match="suppression is hard, soft or matrix, not 'gentle'"):
            DensePostprocess(suppression="gentle")
