"""What a two-stage detector learns from: its proposals, and each cascade stage's classes and boxes.

Ren et al., "Faster R-CNN", arXiv:1506.01497; Cai and Vasconcelos, "Cascade R-CNN", arXiv:1712.00726, section 4; the
balanced loss of Pang et al., "Libra R-CNN", arXiv:1904.02701, section 3.3, is one of its box losses.
predictions with their samples, objects -> losses a row -> sums a level, over the samples
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.assignment import IGNORED, Assignment
from pyrafuse.core.losses import LevelLosses, sum_by_level
from pyrafuse.core.over_processes import divisor_over_processes
from pyrafuse.core.regions import RegionPredictions, TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.dense import DenseCriterion, RowLoss
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.losses.classification import softmax_of_labels
from pyrafuse.losses.registry import LOSSES, is_of_boxes
from pyrafuse.losses.regression import l1
from pyrafuse.ops.coders import BoxCoder


@CRITERIA.register("region", parts={"class_loss": LOSSES, "box_loss": LOSSES})
class RegionCriterion(nn.Module):
    """Losses of `RegionPredictions`, each summed over the batch and divided by its samples, negatives included.

    Args:
        coder: Coder of the boxes.
        class_loss: (logits (B, R, K + 1), labels (B, R), negative for background) -> (B, R).
        box_loss: Loss of a row's box, or of each of its four numbers; of deltas, unless it is marked by `of_boxes`.
        class_weight: Weight of the class loss in the sum.
        box_weight: Weight of the box loss.
    """

    def __init__(
        self,
        *,
        coder: BoxCoder,
        class_loss: RowLoss = softmax_of_labels,
        box_loss: RowLoss = l1,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.coder = coder
        self.class_loss = class_loss
        self.box_loss = box_loss
        self.decoded = is_of_boxes(box_loss)
        self.class_weight = class_weight
        self.box_weight = box_weight

    def forward(
        self, predictions: RegionPredictions, assignment: Assignment, targets: Targets, *, num_levels: int
    ) -> dict[str, Tensor]:
        """Losses (L,) ``classification`` and ``box``, each by the level that its regions were looked at on."""
        is_positive = assignment.is_positive
        labels = assignment.of_rows(targets.labels).where(is_positive, -1)
        weights = assignment.of_rows(targets.weights)
        of_classes = assignment.of_rows(targets.weights_of_classes)
        of_classes = of_classes.where(is_positive, assignment.is_negative.to(weights.dtype))
        divisor = divisor_over_processes((assignment.objects != IGNORED).sum().float())

        classes = self.class_loss(predictions.classes, labels) * of_classes
        boxes = self._box_losses(predictions, labels, assignment, targets) * weights
        return {
            "classification": self.class_weight * sum_by_level(classes, predictions.levels, num_levels) / divisor,
            "box": self.box_weight * sum_by_level(boxes, predictions.levels, num_levels) / divisor,
        }

    def _box_losses(
        self, predictions: RegionPredictions, labels: Tensor, assignment: Assignment, targets: Targets
    ) -> Tensor:
        is_positive = assignment.is_positive
        deltas = predictions.deltas_of(labels.clamp(min=0))
        # rows without an object get a box of one pixel there as the target: what weighs nothing must still be finite
        regions = predictions.regions.boxes
        safe = torch.zeros_like(regions)
        safe[..., 2:] = 1
        regions = regions.where(is_positive[..., None], safe)
        wanted = assignment.of_rows(targets.boxes).where(is_positive[..., None], safe)
        if self.decoded:
            losses = self.box_loss(self.coder.decode(regions, deltas), wanted)
        else:
            losses = self.box_loss(deltas, self.coder.encode(regions, wanted))
        return (losses.sum(dim=2) if losses.ndim == 3 else losses).where(is_positive, 0)


@CRITERIA.register("two_stage", parts={"proposals": CRITERIA}, makers={"regions": CRITERIA})
def two_stage(
    *, proposals: DenseCriterion, regions: Callable[..., RegionCriterion], stages: Sequence[Any]
) -> "TwoStageCriterion":
    """Losses of a region proposal network, and of each stage behind it.

    Args:
        proposals: Losses of the proposals.
        regions: Makes the losses of a stage for its coder.
        stages: The stages, with a coder and a weight each.
    """
    each = [regions(coder=stage.coder) for stage in stages]
    return TwoStageCriterion(proposals, each, weights=[stage.weight for stage in stages])


class TwoStageCriterion(nn.Module):
    """Losses of `TwoStagePredictions` that were sampled for the same objects.

    Args:
        proposals: Losses of the region proposal network; labels are not read.
        stages: Criterion of each second stage.
        weights: Weights of each stage's losses in the sum.

    Raises:
        ValueError: If there is not one weight a stage.
    """

    def __init__(
        self, proposals: DenseCriterion, stages: Sequence[RegionCriterion], *, weights: Sequence[float]
    ) -> None:
        super().__init__()
        if len(stages) != len(weights):
            raise ValueError(f"{len(stages)} stages need as many weights, got {tuple(weights)}")
        self.proposals = proposals
        self.stages = nn.ModuleList(stages)
        self.weights = tuple(weights)

    def forward(self, predictions: TwoStagePredictions, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses by the names of `by_level`; train on their sum."""
        return self.by_level(predictions, targets).terms

    def by_level(self, predictions: TwoStagePredictions, targets: Targets) -> LevelLosses:
        """The losses, each split by pyramid level, and the proposals' positives.

        ``proposal_classification`` and ``proposal_box``; then ``classification`` and ``box``, or, of several stages,
        ``stage1_classification`` and so on.

        Raises:
            PyrafuseError: If the predictions were not sampled: the detector must have seen the targets.
        """
        if len(predictions.assignments) != len(self.stages):
            raise PyrafuseError(
                f"{len(self.stages)} stages are learnt from as many samples, and there are "
                f"{len(predictions.assignments)}; give the targets to the detector as well: detector(images, targets)"
            )
        first = self.proposals.by_level(predictions.proposals, replace(targets, class_weights=None))
        losses = {f"proposal_{name}": values for name, values in first.losses.items()}
        num_levels = len(first.num_positives)
        stages = zip(self.stages, predictions.stages, predictions.assignments, self.weights, strict=True)
        for number, (criterion, stage, assignment, weight) in enumerate(stages, 1):
            prefix = "" if len(self.stages) == 1 else f"stage{number}_"
            terms = criterion(stage, assignment, targets, num_levels=num_levels)
            losses |= {prefix + name: weight * values for name, values in terms.items()}
        return replace(first, losses=losses)
