"""What the plain YOLOv3 learns from: centres and sizes of boxes, objectness, classes.

Redmon and Farhadi, "YOLOv3", arXiv:1804.02767, section 2, in mmdetection's form.
predictions, objects -> assignment -> losses of rows -> sums a level over the batch
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.assigners.grid import GridAssigner
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.parts import part
from pyrafuse.core.assignment import IGNORED, Assignment
from pyrafuse.core.losses import LevelLosses, sum_by_level
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.ops.boxes import centers_and_sizes


@CRITERIA.register("grid", parts={"assigner": ASSIGNERS}, defaults={"assigner": part("grid")})
class GridCriterion(nn.Module):
    """Losses of `GuidedPredictions` without guides, each summed over the batch, not averaged.

    Args:
        assigner: Assigner that matches rows to objects.
        center_weight: Weight of the cross entropy of the centre's place in its cell.
        size_weight: Weight of the squared difference of the log sizes.
        objectness_weight: Weight of the objectness term.
        class_weight: Weight of the classification term.
    """

    def __init__(
        self,
        *,
        assigner: Callable[[GuidedPredictions, Targets], Assignment] | None = None,
        center_weight: float = 2.0,
        size_weight: float = 2.0,
        objectness_weight: float = 1.0,
        class_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.assigner = GridAssigner() if assigner is None else assigner
        self.center_weight = center_weight
        self.size_weight = size_weight
        self.objectness_weight = objectness_weight
        self.class_weight = class_weight

    def forward(self, predictions: GuidedPredictions, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses ``center``, ``size``, ``objectness``, ``classification``; train on their sum."""
        return self.by_level(predictions, targets).terms

    def by_level(self, predictions: GuidedPredictions, targets: Targets) -> LevelLosses:
        """The same losses, each split by pyramid level."""
        grid = predictions.grid
        assignment = self.assigner(predictions, targets)
        is_positive = assignment.is_positive
        weights = assignment.of_rows(targets.weights)
        inside, logs = self._answers(predictions, assignment.of_rows(targets.boxes))
        labels = assignment.of_rows(targets.labels)

        deltas, classes = predictions.deltas, predictions.classes
        center = F.binary_cross_entropy_with_logits(deltas[..., :2], inside, reduction="none").sum(dim=2)
        size = (deltas[..., 2:] - logs).square().sum(dim=2)
        # every class is taken for wrong, and the one that is right put right
        wrong = F.softplus(classes).sum(dim=2) - classes.gather(2, labels[..., None]).squeeze(2)
        wanted = is_positive.to(deltas.dtype)
        objectness = F.binary_cross_entropy_with_logits(predictions.objectness, wanted, reduction="none")
        counts = (assignment.objects != IGNORED).to(deltas.dtype)
        losses = {
            "center": self.center_weight * center * weights,
            "size": self.size_weight * size * weights,
            "objectness": self.objectness_weight * objectness * weights.where(is_positive, counts),
            "classification": self.class_weight * wrong * assignment.of_rows(targets.weights_of_classes),
        }
        num_levels = len(grid.sizes)
        return LevelLosses(
            losses={name: sum_by_level(values, grid.levels, num_levels) for name, values in losses.items()},
            num_positives=sum_by_level(wanted, grid.levels, num_levels),
            is_positive=is_positive,
        )

    def _answers(self, predictions: GuidedPredictions, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """For boxes (B, A, 4): the centre's place in the row's cell (B, A, 2), and the log sizes (B, A, 2)."""
        grid = predictions.grid
        centers, sizes = centers_and_sizes(boxes)
        inside = centers / grid.strides[:, None] - grid.cells
        # rows without an object have a box without size: whatever weighs nothing must still be finite
        return inside.clamp(1e-6, 1 - 1e-6), (sizes / grid.shapes).clamp(min=1e-6).log()
