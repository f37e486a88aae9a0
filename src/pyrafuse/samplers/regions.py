"""Which regions a stage learns from: proposals and the objects' own boxes, assigned and drawn image by image.

Girshick, "Fast R-CNN", arXiv:1504.08083, section 2.3.
regions, objects -> assignment -> draw -> the drawn regions, packed
"""

from typing import Protocol

import torch
from torch import Tensor

from pyrafuse.core.assignment import IGNORED, Assignment
from pyrafuse.core.regions import Regions
from pyrafuse.core.targets import Targets
from pyrafuse.samplers.sampling import Sampler


class RegionAssigner(Protocol):
    """Matches of regions to objects."""

    def assign(self, anchors: Tensor, targets: Targets) -> Assignment:
        """Assign boxes (B, R, 4), xyxy in pixels."""
        ...


class RegionSampler:
    """Draw the regions to learn from.

    Args:
        assigner: Assigner that matches regions to objects.
        sampler: How many are drawn, and how.
        add_objects: Let the objects' own boxes be drawn, too.
    """

    def __init__(self, *, assigner: RegionAssigner, sampler: Sampler, add_objects: bool = True) -> None:
        self.assigner = assigner
        self.sampler = sampler
        self.add_objects = add_objects

    @torch.no_grad()
    def __call__(self, regions: Regions, targets: Targets) -> tuple[Regions, Assignment]:
        """The drawn regions, and which object each is matched to; always so many rows, some of them not valid."""
        assignment = self.assigner.assign(regions.boxes, targets)
        objects = assignment.objects.where(regions.valid, IGNORED)
        overlaps = assignment.overlaps.where(regions.valid, 0)
        if self.add_objects:
            regions, objects, overlaps = _add_objects(regions, objects, overlaps, targets)
        drawn = self.sampler(Assignment(objects=objects, overlaps=overlaps))
        is_drawn = drawn.objects != IGNORED
        # a fixed number of rows, the drawn ones first: the host need not know how many there are
        number = min(self.sampler.number, is_drawn.shape[1])
        rows = is_drawn.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :number]
        valid = is_drawn.gather(1, rows)
        boxes = regions.boxes.gather(1, rows[..., None].expand(-1, -1, 4))
        packed = Regions(
            boxes=boxes.where(valid[..., None], 0),
            scores=regions.scores.gather(1, rows),
            valid=valid,
            is_object=regions.is_object.gather(1, rows),
        )
        return packed, Assignment(objects=drawn.objects.gather(1, rows), overlaps=drawn.overlaps.gather(1, rows))


def _add_objects(
    regions: Regions, objects: Tensor, overlaps: Tensor, targets: Targets
) -> tuple[Regions, Tensor, Tensor]:
    """Put the objects' own boxes, each assigned to itself, before the regions."""
    valid = targets.valid
    own = torch.arange(valid.shape[1], device=valid.device).expand_as(valid).where(valid, IGNORED)
    ones = valid.to(overlaps.dtype)
    boxes = targets.boxes.to(regions.boxes.dtype).where(valid[..., None], 0)
    joined = Regions(
        boxes=torch.cat((boxes, regions.boxes), dim=1),
        scores=torch.cat((ones, regions.scores), dim=1),
        valid=torch.cat((valid, regions.valid), dim=1),
        is_object=torch.cat((valid, regions.is_object), dim=1),
    )
    return joined, torch.cat((own, objects), dim=1), torch.cat((ones, overlaps), dim=1)
