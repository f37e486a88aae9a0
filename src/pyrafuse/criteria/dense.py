"""What dense heads learn from: classes of all rows, boxes of the positives, and how well these lie.

RetinaNet (arXiv:1708.02002), FCOS (arXiv:1904.01355), ATSS (arXiv:1912.02424), DDOD (arXiv:2107.02963) and Libra
RetinaNet (arXiv:1904.02701) are choices of its parts.
predictions, objects -> assignment -> sample -> losses a row -> sums a level, over the positives
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.core.assignment import Assignment
from pyrafuse.core.losses import LevelLosses, sum_by_level
from pyrafuse.core.over_processes import divisor_over_processes, sum_over_processes
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.level_weights import LevelWeights, ScheduledLevelWeights
from pyrafuse.criteria.registry import CRITERIA, LEVEL_WEIGHTS
from pyrafuse.losses.classification import binary_cross_entropy, focal_of_labels
from pyrafuse.losses.registry import LOSSES, is_of_boxes
from pyrafuse.losses.regression import l1
from pyrafuse.ops.boxes import centerness, centers_and_sizes, paired_iou
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.samplers.registry import SAMPLERS
from pyrafuse.samplers.sampling import keep_all

Assign = Callable[[DensePredictions, Targets], Assignment]
Sample = Callable[[Assignment], Assignment]
Mine = Callable[[Assignment, Tensor], Assignment]
"""(assignment, losses of the classes (B, A)) -> the same assignment, with rows ignored."""
RowLoss = Callable[[Tensor, Tensor], Tensor]
"""Of classes: (logits (B, A, K), labels (B, A), negative for background) -> (B, A). Of boxes: (found, wanted), both
(B, A, 4), -> (B, A) or (B, A, 4)."""


@dataclass(frozen=True)
class BoxTerms:
    """Losses and weights (B, A) of the positives' boxes."""

    box: Tensor
    quality: Tensor | None
    weights: Tensor


@CRITERIA.register(
    "dense",
    parts={
        "assigner": ASSIGNERS,
        "box_assigner": ASSIGNERS,
        "sampler": SAMPLERS,
        "mine": SAMPLERS,
        "class_loss": LOSSES,
        "box_loss": LOSSES,
        "level_weights": LEVEL_WEIGHTS,
    },
)
class DenseCriterion(nn.Module):
    """Losses of `DensePredictions`, each summed over the batch and divided by its positives.

    Args:
        assigner: Assigner that matches rows to objects.
        coder: Coder of the boxes.
        box_assigner: The same for boxes and quality, where they have rows of their own; by default the same rows.
        sampler: Which of the assigned rows count.
        mine: Which of these count for the classes, told by their losses; by default all.
        class_loss: Loss of the classes, for each row.
        box_loss: Loss of a row's box, or of each of its four numbers; of deltas, unless it is marked by `of_boxes`.
        quality: What the quality branch learns: ``centerness`` of the anchor's centre in the object, which then also
            weighs the boxes, or ``iou`` of the box with it; None where there is no such branch.
        level_weights: Level weights for all losses; None weighs all levels alike.
        class_weight: Weight of the class loss in the sum.
        box_weight: Weight of the box loss.
        quality_weight: Weight of the quality loss.
        least_per_image: Every image counts for at least so many positives in the divisor, and for as many negatives
            where these are in it.
        over_samples: Divide by all rows that count, negatives included, instead of the positives (Faster R-CNN).

    Raises:
        ValueError: If ``quality`` is none of these.
    """

    def __init__(
        self,
        *,
        assigner: Assign,
        coder: BoxCoder,
        box_assigner: Assign | None = None,
        sampler: Sample = keep_all,
        mine: Mine | None = None,
        class_loss: RowLoss = focal_of_labels,
        box_loss: RowLoss = l1,
        quality: Literal["centerness", "iou"] | None = None,
        level_weights: LevelWeights | ScheduledLevelWeights | None = None,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        quality_weight: float = 1.0,
        least_per_image: int = 1,
        over_samples: bool = False,
    ) -> None:
        super().__init__()
        if quality not in (None, "centerness", "iou"):
            raise ValueError(f"the quality of a box is its centerness or iou, not {quality!r}")
        self.assigner = assigner
        self.box_assigner = box_assigner
        self.sampler = sampler
        self.mine = mine
        self.coder = coder
        self.class_loss = class_loss
        self.box_loss = box_loss
        self.decoded = is_of_boxes(box_loss)
        self.quality = quality
        self.level_weights = level_weights
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.quality_weight = quality_weight
        self.least_per_image = least_per_image
        self.over_samples = over_samples

    def forward(self, predictions: DensePredictions, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses ``classification``, ``box`` and, with a quality branch, ``quality``; train on their sum."""
        return self.by_level(predictions, targets).terms

    def by_level(self, predictions: DensePredictions, targets: Targets) -> LevelLosses:
        """The same losses, each split by pyramid level."""
        grid = predictions.grid

        def by_level(values: Tensor) -> Tensor:
            return sum_by_level(values, grid.levels, len(grid.sizes))

        of_classes = self.sampler(self.assigner(predictions, targets))
        of_boxes = of_classes
        if self.box_assigner is not None:
            of_boxes = self.sampler(self.box_assigner(predictions, targets))
        class_levels = by_level(of_classes.is_positive.float())
        box_levels = by_level(of_boxes.is_positive.float())
        class_factors = box_factors = torch.ones_like(class_levels)
        if self.level_weights is not None:
            class_factors = self.level_weights(sum_over_processes(class_levels))
            box_factors = self.level_weights(sum_over_processes(box_levels), of_boxes=True)

        classes = by_level(self._class_losses(predictions, of_classes, targets))
        terms = self._box_terms(predictions, of_boxes, targets)
        num_boxes = self._num_positives(of_boxes)
        divisor = num_boxes
        if self.quality == "centerness":
            divisor = divisor_over_processes(terms.weights.sum())
        losses = {
            "classification": self.class_weight * class_factors * classes / self._num_positives(of_classes),
            "box": self.box_weight * box_factors * by_level(terms.box * terms.weights) / divisor,
        }
        if terms.quality is not None:
            losses["quality"] = self.quality_weight * box_factors * by_level(terms.quality) / num_boxes
        return LevelLosses(losses=losses, num_positives=class_levels, is_positive=of_classes.is_positive)

    def _num_positives(self, assignment: Assignment) -> Tensor:
        of_images = assignment.is_positive.sum(dim=1).clamp(min=self.least_per_image)
        if self.over_samples:
            of_images = of_images + assignment.is_negative.sum(dim=1).clamp(min=self.least_per_image)
        return divisor_over_processes(of_images.sum().float())

    def _class_losses(self, predictions: DensePredictions, assignment: Assignment, targets: Targets) -> Tensor:
        labels = assignment.of_rows(targets.labels).where(assignment.is_positive, -1)
        losses = self.class_loss(predictions.classes, labels)
        if self.mine is not None:
            assignment = self.mine(assignment, losses.detach())
        weights = assignment.of_rows(targets.weights_of_classes).where(
            assignment.is_positive, assignment.is_negative.to(targets.weights.dtype)
        )
        return losses * weights

    def _box_terms(self, predictions: DensePredictions, assignment: Assignment, targets: Targets) -> BoxTerms:
        is_positive = assignment.is_positive
        anchors = predictions.anchors.expand(len(is_positive), -1, -1)
        # rows without an object get their anchor as target: whatever weighs nothing must still have finite gradients
        wanted = assignment.of_rows(targets.boxes).where(is_positive[..., None], anchors)
        weights = assignment.of_rows(targets.weights)
        found = self.coder.decode(anchors, predictions.deltas) if self.decoded or self.quality == "iou" else None
        if self.decoded:
            assert found is not None
            losses = self.box_loss(found, wanted)
        else:
            losses = self.box_loss(predictions.deltas, self.coder.encode(anchors, wanted))
        losses = (losses.sum(dim=2) if losses.ndim == 3 else losses).where(is_positive, 0)
        if self.quality is None or predictions.quality is None:
            return BoxTerms(box=losses, quality=None, weights=weights)
        with torch.no_grad():
            if self.quality == "centerness":
                centers, _ = centers_and_sizes(anchors)
                answer = centerness(centers, wanted)
            else:
                assert found is not None
                answer = paired_iou(found, wanted)
        quality = binary_cross_entropy(predictions.quality, answer) * weights
        return BoxTerms(
            box=losses,
            quality=quality.where(is_positive, 0),
            weights=weights * answer if self.quality == "centerness" else weights,
        )
