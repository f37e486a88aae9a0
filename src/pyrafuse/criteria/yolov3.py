"""What YOLOv3 with guided anchoring learns from: shapes of anchors, boxes, objectness, classes.

arXiv:1911.09516, section 3.1.
predictions, objects -> claims -> rows gathered -> losses summed a level, over the batch size

Everything is as long as the objects are many; only objectness and the overlap that excuses a row span all A rows.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrafuse.assigners.guided_anchor import Claims, GuidedAnchorAssigner, GuidedAssignment
from pyrafuse.assigners.max_iou import chunks, highest_of_rows, lay_out
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.parts import part
from pyrafuse.core.losses import LevelLosses, sum_by_level
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.losses.classification import smoothed_targets
from pyrafuse.ops.boxes import box_area, centers_and_sizes, paired_iou, pairwise_intersection, shape_iou
from pyrafuse.ops.coders import decode_guided, guided_shapes


@CRITERIA.register("yolov3", parts={"assigner": ASSIGNERS}, defaults={"assigner": part("guided_anchor")})
class YOLOv3Criterion(nn.Module):
    """The loss with all its terms, each summed over the batch and divided by the number of its images.

    Args:
        assigner: Assigner that matches rows to objects.
        ignore_iou: A row whose box overlaps any object by more is not punished for its objectness.
        label_smoothing: The true class learns 1 - 1/K and the others 1/K instead of 1 and 0; with one or two classes
            less, as `smoothed_targets` says.
        iou: Weigh in the IoU term; without it boxes learn by the L1 term alone, as in YOLOv3.
        l1: Weigh in the L1 term on centre and size.
        box_weight: Weight of the IoU term.
        class_weight: Weight of the classification term.
        objectness_weight: Weight of the objectness term.
        iou_objectness: A positive's objectness learns the overlap of its box with the object instead of 1, so that
            well-placed boxes come first.
    """

    def __init__(
        self,
        *,
        assigner: Callable[[GuidedPredictions, Targets], GuidedAssignment] | None = None,
        ignore_iou: float = 0.7,
        label_smoothing: bool = False,
        iou: bool = True,
        l1: bool = True,
        iou_objectness: bool = False,
        box_weight: float = 1.0,
        class_weight: float = 1.0,
        objectness_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not (iou or l1):
            raise ValueError("boxes need a loss: switch on iou or l1")
        self.assigner = GuidedAnchorAssigner() if assigner is None else assigner
        self.ignore_iou = ignore_iou
        self.label_smoothing = label_smoothing
        self.iou = iou
        self.l1 = l1
        self.iou_objectness = iou_objectness
        self.box_weight = box_weight
        self.class_weight = class_weight
        self.objectness_weight = objectness_weight

    def forward(self, predictions: GuidedPredictions, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses ``anchor``, ``iou``, ``l1``, ``objectness``, ``classification``; train on their sum."""
        return self.by_level(predictions, targets).terms

    def by_level(self, predictions: GuidedPredictions, targets: Targets) -> LevelLosses:
        """The same losses, each split by pyramid level."""
        grid = predictions.grid
        num_levels = len(grid.sizes)
        boxes = decode_guided(predictions)
        shapes = guided_shapes(predictions)
        assignment = self.assigner(predictions, targets)
        claims = assignment.positives
        holds = _is_last_claim(claims, grid.levels)
        wanted = _gather(targets.boxes, _objects_at(assignment.shapes, claims.rows, grid.levels))
        overlap = paired_iou(_gather(boxes, claims.rows), wanted)

        losses = {
            "anchor": self._shape_loss(shapes, assignment.shapes, targets, grid.levels),
            **self._box_losses(predictions, overlap, shapes, claims.rows, wanted),
            "classification": self.class_weight * self._class_loss(predictions, claims, targets),
        }
        rows = {"anchor": assignment.shapes.rows}
        held = {name: values if name == "anchor" else values.where(holds, 0) for name, values in losses.items()}
        parts = {
            name: sum_by_level(values, grid.levels[rows.get(name, claims.rows)], num_levels)
            for name, values in held.items()
        }
        objectness = self._objectness_loss(predictions, boxes.detach(), overlap.detach(), claims, holds, targets)
        parts["objectness"] = self.objectness_weight * sum_by_level(objectness, grid.levels, num_levels)
        batch_size = len(targets.labels)
        return LevelLosses(
            losses={name: values / batch_size for name, values in parts.items()},
            num_positives=sum_by_level(holds.to(boxes.dtype), grid.levels[claims.rows], num_levels),
            is_positive=_spread(torch.ones_like(holds), claims.rows, holds, torch.zeros_like(boxes[..., 0]).bool()),
        )

    def _shape_loss(self, shapes: Tensor, claims: Claims, targets: Targets, levels: Tensor) -> Tensor:
        _, sizes = centers_and_sizes(targets.boxes)
        loss = 1 - shape_iou(_gather(shapes, claims.rows), sizes[:, claims.objects]) ** 2
        return loss.where(_is_last_claim(claims, levels), 0)

    def _box_losses(
        self, predictions: GuidedPredictions, overlap: Tensor, shapes: Tensor, rows: Tensor, wanted: Tensor
    ) -> dict[str, Tensor]:
        grid = predictions.grid
        centers, sizes = centers_and_sizes(wanted)
        scale = 2 - box_area(wanted) / grid.extent.prod()  # small objects count up to twice
        losses = {"iou": self.box_weight * scale * (1 - overlap**2)} if self.iou else {}
        if self.l1:
            deltas = _gather(predictions.deltas, rows)
            inside = centers / grid.strides[rows][..., None] - grid.cells[rows]
            inside = ((inside - 0.5) / (1 + 2 * grid.reach) + 0.5).clamp(0, 1)
            center = F.binary_cross_entropy_with_logits(deltas[..., :2], inside, reduction="none")
            # not detached: the size target teaches the guided shapes as well
            size = (deltas[..., 2:] - (sizes / _gather(shapes, rows) + 1e-12).log()).abs()
            losses["l1"] = scale * (center + size).sum(dim=-1)
        return losses

    def _class_loss(self, predictions: GuidedPredictions, claims: Claims, targets: Targets) -> Tensor:
        logits = _gather(predictions.classes, claims.rows)
        labels = targets.labels[:, claims.objects]
        num_classes = logits.shape[-1]
        if self.label_smoothing:
            own, other = smoothed_targets(num_classes)
            wanted = torch.full_like(logits, other).scatter(2, labels[..., None], own)
        else:
            # objects that share a row share its classes: each writes its own into the columns of the one that holds it
            holder = _objects_at(claims, claims.rows, predictions.grid.levels, as_claims=True)
            wanted = torch.zeros_like(logits).flatten(1)
            wanted = wanted.scatter_add_(1, holder * num_classes + labels, claims.valid.to(wanted.dtype))
            wanted = wanted.view(logits.shape).clamp_(max=1)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(dim=-1)
        weights = targets.class_weights
        return losses if weights is None else losses * weights[:, claims.objects]

    def _objectness_loss(
        self,
        predictions: GuidedPredictions,
        boxes: Tensor,
        overlap: Tensor,
        claims: Claims,
        holds: Tensor,
        targets: Targets,
    ) -> Tensor:
        weight = (~self._is_excused(boxes, targets)).to(predictions.objectness.dtype)
        wanted = torch.zeros_like(weight)
        weight = _spread(targets.weights[:, claims.objects].to(weight.dtype), claims.rows, holds, weight)
        wanted = _spread(overlap if self.iou_objectness else torch.ones_like(overlap), claims.rows, holds, wanted)
        loss = F.binary_cross_entropy_with_logits(predictions.objectness, wanted, reduction="none")
        return loss * weight

    @torch.no_grad()
    def _is_excused(self, boxes: Tensor, targets: Targets) -> Tensor:
        """(B, A) bool: the box overlaps an object well, or lies in a crowd."""
        others = targets.boxes.where((targets.valid | targets.crowd)[..., None], 0)  # overlaps nothing
        rows, areas = lay_out(boxes), box_area(boxes)[:, None] + 1e-16  # 0/0 is 0
        highest = torch.zeros(boxes.shape[:2], device=boxes.device)
        for columns in chunks(highest.numel(), others.shape[1], is_cached=boxes.is_cpu):
            shared = pairwise_intersection(others[:, columns], rows)
            # an object is compared with both areas less what they share, a crowd with the box alone
            rest = (box_area(others[:, columns])[..., None] - shared).mul_(targets.valid[:, columns, None])
            highest = torch.maximum(highest, highest_of_rows(shared.div_(rest.add_(areas))))
        return highest > self.ignore_iou


def _gather(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, C) of values (B, A, D) -> (B, C, D)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def _objects_at(claims: Claims, rows: Tensor, levels: Tensor, *, as_claims: bool = False) -> Tensor:
    """(B, C) int64: the last object (or claim) that claims each of ``rows``; 0 where nobody does."""
    writers = torch.arange(claims.rows.shape[1], device=rows.device) if as_claims else claims.objects
    table = torch.zeros(len(rows), len(levels), dtype=torch.int64, device=rows.device)
    table = table.scatter_reduce(1, claims.rows, writers.expand_as(claims.rows).where(claims.valid, 0), "amax")
    return table.gather(1, rows)


def _is_last_claim(claims: Claims, levels: Tensor) -> Tensor:
    """(B, C) bool: valid, and no later object claims the same row."""
    last = _objects_at(claims, claims.rows, levels)
    return claims.valid & (last == claims.objects)


def _spread(values: Tensor, rows: Tensor, holds: Tensor, into: Tensor) -> Tensor:
    """``into`` (B, A), with ``values`` (B, C) in those of the ``rows`` (B, C) that the claim holds (B, C)."""
    # claims that hold no row write into one column past the end
    return F.pad(into, (0, 1)).scatter(1, rows.where(holds, into.shape[1]), values)[:, :-1]
