"""The selection as a graph: the same detections for any number of images."""

import pytest
import torch
from torch import nn

from pyrafuse.core.predictions import Candidates
from pyrafuse.postprocess.dense import DensePostprocess


class Selecting(nn.Module):
    def __init__(self, postprocess: DensePostprocess) -> None:
        super().__init__()
        self.postprocess = postprocess

    def forward(self, boxes, scores, quality, levels, sizes):
        candidates = Candidates(boxes, scores, levels, quality, counts=(30, 10))
        return self.postprocess.select(candidates, sizes)


def inputs(batch: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    corners = torch.rand(batch, 40, 2, generator=generator) * 60 - 10
    boxes = torch.cat((corners, corners + torch.rand(batch, 40, 2, generator=generator) * 40), dim=2)
    scores = torch.rand(batch, 40, 3, generator=generator)
    quality = torch.rand(batch, 40, generator=generator)
    sizes = torch.tensor([[50, 70 - i] for i in range(batch)])
    return boxes, scores, quality, (torch.arange(40) >= 30).long(), sizes


@pytest.mark.parametrize(
    "options",
    [
        {"multi_label": True, "max_per_level": 20, "clip": True, "vote_iou": 0.6},
        {"suppression": "soft", "max_per_class": 4},
        {"suppression": "matrix", "multi_label": True, "max_pairs": 50, "labels": (0, 2)},
    ],
)
def test_a_graph_selects_the_same(options):
    selecting = Selecting(DensePostprocess(score=0.2, nms_iou=0.4, max_detections=12, **options))
    dim = torch.export.Dim("batch")
    shapes = ({0: dim}, {0: dim}, {0: dim}, None, {0: dim})
    graph = torch.export.export(selecting, inputs(2), dynamic_shapes=shapes).module()
    for batch in (2, 3):
        ours, theirs = selecting(*inputs(batch)), graph(*inputs(batch))
        assert ours.rows.shape == (batch, 12)
        assert ours.valid.any()
        for name in ("rows", "labels", "levels", "valid"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        torch.testing.assert_close(ours.boxes, theirs.boxes)
        torch.testing.assert_close(ours.scores, theirs.scores)


def test_rows_are_the_candidates_own_where_few_of_many_pass():
    scores = torch.zeros(2, 100, 3)
    scores[0, 90, 1], scores[0, 7, 2], scores[0, 7, 0], scores[1, 40, 0] = 0.9, 0.5, 0.5, 0.7
    corners = torch.arange(200.0).view(2, 100, 1) * 20
    candidates = Candidates(
        boxes=torch.cat((corners, corners, corners + 10, corners + 10), dim=2),
        scores=scores,
        levels=torch.arange(100) // 40,
    )
    first, second = DensePostprocess(score=0.3, multi_label=True)(candidates)
    assert first.rows.tolist() == [90, 7, 7]
    assert first.labels.tolist() == [1, 0, 2]
    assert first.levels.tolist() == [2, 0, 0]
    assert first.boxes[:, 0].tolist() == [1800, 140, 140]
    assert second.rows.tolist() == [40]
    assert second.levels.tolist() == [1]
    assert second.boxes.tolist() == [[2800, 2800, 2810, 2810]]
    nothing, _ = DensePostprocess(score=0.95, multi_label=True)(candidates)
    assert len(nothing) == 0
