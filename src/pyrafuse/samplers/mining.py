"""Negatives that count because they are the hardest: SSD's.

Liu et al., "SSD: Single Shot MultiBox Detector", arXiv:1512.02325, section 2.2.
assignment, losses of its rows -> the same assignment, all but the worst negatives ignored
"""

from dataclasses import replace

import torch
from torch import Tensor

from pyrafuse.core.assignment import IGNORED, Assignment
from pyrafuse.samplers.registry import SAMPLERS
from pyrafuse.samplers.sampling import ranks_of


@SAMPLERS.register("hardest")
@torch.no_grad()
def mine_hardest(assignment: Assignment, losses: Tensor, *, negatives_per_positive: float = 3.0) -> Assignment:
    """Let the negatives of greatest loss count, so many for each positive of their image, and ignore the others.

    An image without positives has no negatives either.

    Args:
        assignment: (B, A).
        losses: (B, A), of the classes.
        negatives_per_positive: Maximum number of negatives for each positive.
    """
    wanted = (negatives_per_positive * assignment.is_positive.sum(dim=1, keepdim=True)).long()
    ranks = ranks_of(-losses.masked_fill(~assignment.is_negative, -torch.inf))
    is_easy = assignment.is_negative & (ranks >= wanted)
    return replace(assignment, objects=assignment.objects.masked_fill(is_easy, IGNORED))
