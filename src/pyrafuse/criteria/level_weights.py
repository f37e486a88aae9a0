"""Weights of pyramid levels: by how many positives they have had, or as they are given.

Chen et al., "Disentangle Your Dense Object Detector", arXiv:2107.02963, section 4.3, and the study before it.
positives of this step -> added to the counters -> weight between the ends, by the rank between fewest and most
"""

import torch
from torch import Tensor, nn

from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.criteria.registry import LEVEL_WEIGHTS


@LEVEL_WEIGHTS.register("counted")
class LevelWeights(nn.Module):
    """Counters of positives, kept in the checkpoint, and the weights that follow from them.

    Args:
        features: The pyramid that the head reads.
        ends: Weights of the level with the most positives and of the one with the fewest.
        shared: Classification and boxes add to one list of counters, one after the other, as DDOD's own code does;
            else each has its own.
    """

    counters: Tensor

    def __init__(self, features: PyramidSpec, *, ends: tuple[float, float] = (1.0, 2.0), shared: bool = True) -> None:
        super().__init__()
        num_levels = len(features)
        if num_levels < 1 or min(ends) < 0:
            raise ValueError(f"levels must be at least one and weights not negative, got {num_levels} and {ends}")
        self.ends = ends
        self.register_buffer("counters", torch.zeros(1 if shared else 2, num_levels))

    @torch.no_grad()
    def forward(self, num_positives: Tensor, *, of_boxes: bool = False) -> Tensor:
        """Weights (L,) after ``num_positives`` (L,) were counted; outside training they are not counted.

        Args:
            num_positives: Number of positives of each level in this step.
            of_boxes: Positives of the boxes, not of the classes.
        """
        counters = self.counters[int(of_boxes) % len(self.counters)]
        if self.training:
            counters += num_positives
        # a copy: the counters go on, and the weights of this step must not
        low, high = counters.min(), counters.max()
        share = (counters - low) / (high - low + 1e-10)
        return self.ends[1] - (self.ends[1] - self.ends[0]) * share


@LEVEL_WEIGHTS.register("scheduled")
class ScheduledLevelWeights(nn.Module):
    """Weights that rise or fall evenly from the finest level to the coarsest, whatever the positives are.

    Args:
        features: The pyramid that the head reads.
        schedule: Weights of the finest level and of the coarsest; (1, 2) was the best in the paper, (3, 1) the worst.
    """

    weights: Tensor

    def __init__(self, features: PyramidSpec, *, schedule: tuple[float, float]) -> None:
        super().__init__()
        num_levels = len(features)
        if num_levels < 1 or len(schedule) != 2 or min(schedule) < 0:
            raise ValueError(
                f"a schedule is two weights, not negative, for one level or more; got {schedule} for {num_levels}"
            )
        self.register_buffer("weights", torch.linspace(*schedule, num_levels), persistent=False)

    def forward(self, num_positives: Tensor, *, of_boxes: bool = False) -> Tensor:  # noqa: ARG002
        """Weights (L,), the same for classes and boxes."""
        return self.weights
