"""Regions to learn from, by hand: objects' own boxes first, padding never, the drawn ones packed."""

import torch

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.core.assignment import BACKGROUND, IGNORED
from pyrafuse.core.regions import Regions
from pyrafuse.core.targets import Targets
from pyrafuse.samplers.regions import RegionSampler
from pyrafuse.samplers.sampling import Sampler

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [50, 50, 60, 60], [0, 0, 0, 0]])
REGIONS = Regions(
    boxes=BOXES.expand(2, -1, -1),
    scores=torch.tensor([0.9, 0.8, 0.7, 0.0]).expand(2, -1),
    valid=torch.tensor([True, True, True, False]).expand(2, -1),
    is_object=torch.zeros(2, 4, dtype=torch.bool),
)
TARGETS = Targets.pad(
    [torch.tensor([[30.0, 30, 40, 40], [0, 0, 10, 10], [50, 50, 90, 90]]), torch.zeros(0, 4)],
    [torch.tensor([1, 2, 0]), torch.zeros(0)],
    crowd=[torch.tensor([False, False, True]), torch.zeros(0)],
)
ASSIGNER = MaxIoUAssigner(positive_iou=0.5, negative_iou=0.5, match_best=False)


def test_all_are_taken_where_there_is_room():
    drawn, assignment = RegionSampler(assigner=ASSIGNER, sampler=Sampler(number=100, positive_fraction=1.0))(
        REGIONS, TARGETS
    )
    assert drawn.boxes.shape == (2, 7, 4)
    assert assignment.objects.tolist() == [
        [0, 1, 1, 1, BACKGROUND, IGNORED, IGNORED],
        [BACKGROUND] * 3 + [IGNORED] * 4,
    ]
    assert drawn.valid.sum(dim=1).tolist() == [5, 3]
    assert drawn.is_object.sum(dim=1).tolist() == [2, 0]
    assert drawn.is_object[0, :2].all()
    assert drawn.boxes[0, :2].tolist() == TARGETS.boxes[0, :2].tolist()
    assert (drawn.boxes[~drawn.valid] == 0).all()
    torch.testing.assert_close(assignment.overlaps[0, :5], torch.tensor([1, 1, 1, 0.8, 0]))


def test_a_number_is_drawn():
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        drawn, assignment = RegionSampler(assigner=ASSIGNER, sampler=Sampler(number=4, positive_fraction=0.5))(
            REGIONS, TARGETS
        )
        assert drawn.boxes.shape == (2, 4, 4)
        assert assignment.is_positive.sum(dim=1).tolist() == [2, 0]
        assert assignment.is_negative.sum(dim=1).tolist() == [1, 3]
        seen.add(tuple(drawn.is_object[0].tolist()))
    assert len(seen) > 1


def test_objects_can_be_left_out():
    sampler = RegionSampler(assigner=ASSIGNER, sampler=Sampler(number=100, positive_fraction=1.0), add_objects=False)
    drawn, assignment = sampler(REGIONS, TARGETS)
    assert not drawn.is_object.any()
    assert assignment.objects.tolist() == [[1, 1, BACKGROUND, IGNORED], [BACKGROUND] * 3 + [IGNORED]]


def test_no_rows_for_objects_at_all():
    drawn, assignment = RegionSampler(assigner=ASSIGNER, sampler=Sampler())(REGIONS, Targets.empty(2, 0))
    assert drawn.valid.sum(dim=1).tolist() == [3, 3]
    assert not assignment.is_positive.any()
