"""What flows between the stages of a two-stage detector: regions, and what was predicted of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrafuse.core.assignment import Assignment
from pyrafuse.core.predictions import DensePredictions


@dataclass(frozen=True)
class Regions:
    """Boxes that a stage judges, R an image; images with fewer are filled up with rows that are not valid.

    Attributes:
        boxes: (B, R, 4) float32, xyxy in pixels of the network's input; zero where not valid. No gradient returns.
        scores: (B, R) float32 in 0..1, that there is an object.
        valid: (B, R) bool, false for a row that fills up.
        is_object: (B, R) bool, true where the box is an object's own, added to learn from.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor
    is_object: Tensor


@dataclass(frozen=True)
class RegionPredictions:
    """Raw output of one stage.

    Attributes:
        regions: Where it looked.
        levels: (B, R) int64, the pyramid level it looked at, 0 the finest.
        classes: (B, R, K + 1) logits, the last of the background.
        deltas: (B, R, K, 4), or (B, R, 1, 4) for all classes alike: a box relative to the region, as a `BoxCoder` reads
            it.
    """

    regions: Regions
    levels: Tensor
    classes: Tensor
    deltas: Tensor

    def deltas_of(self, labels: Tensor) -> Tensor:
        """The deltas (B, R, 4) for one class (B, R) of each region."""
        if self.deltas.shape[2] == 1:
            return self.deltas[:, :, 0]
        return self.deltas.gather(2, labels[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]


@dataclass(frozen=True)
class TwoStagePredictions:
    """Raw output of a two-stage detector.

    Attributes:
        proposals: Output of the region proposal network for every anchor; one class.
        stages: What each later stage said of its regions; each looks where the one before has moved them.
        assignments: (B, R) of each stage's regions, where they were sampled to learn from; else none.
    """

    proposals: DensePredictions
    stages: tuple[RegionPredictions, ...]
    assignments: tuple[Assignment, ...] = ()


for _leaves_forward in (Assignment, Regions, RegionPredictions, TwoStagePredictions):
    torch.export.register_dataclass(_leaves_forward)
