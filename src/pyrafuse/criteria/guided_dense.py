"""What dense heads with guided anchors learn besides: places and shapes of anchors.

Wang et al., "Region Proposal by Guided Anchoring", arXiv:1901.03278, section 3.4.
locations -> focal loss around the objects' centres; shapes -> bounded IoU with the object; then as any dense head
"""

from dataclasses import replace

from torch import Tensor, nn

from pyrafuse.assigners.locations import LocationAssigner
from pyrafuse.assigners.max_iou import ApproxMaxIoUAssigner
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.parts import part
from pyrafuse.core.losses import LevelLosses, sum_by_level
from pyrafuse.core.over_processes import mean_over_processes
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.dense import Assign, DenseCriterion, Sample
from pyrafuse.criteria.registry import CRITERIA
from pyrafuse.losses.boxes import bounded_iou_loss
from pyrafuse.losses.classification import focal
from pyrafuse.ops.coders import guide_anchors
from pyrafuse.samplers.registry import SAMPLERS
from pyrafuse.samplers.sampling import Sampler

CELLS_PER_LOCATION = 200
"""The location loss is a mean over all cells, times this: about so many cells share one that holds an object."""


@CRITERIA.register(
    "guided_dense",
    parts={
        "dense": CRITERIA,
        "shape_assigner": ASSIGNERS,
        "shape_sampler": SAMPLERS,
        "location_assigner": ASSIGNERS,
    },
    defaults={
        "shape_assigner": part("approx_max_iou"),
        "shape_sampler": part("random", number=256),
        "location_assigner": part("locations"),
    },
)
class GuidedDenseCriterion(nn.Module):
    """`DenseCriterion` on the guided anchors, and the losses of the guides.

    Args:
        dense: Criterion of classes and boxes.
        shape_assigner: Assigner that matches squares to objects.
        shape_sampler: Which of them count.
        location_assigner: Where objects are.
        shape_weight: Weight of the shape loss in the sum.
        location_weight: Weight of the location loss.
        beta: Value below which the bounded IoU loss is quadratic.
        inverted_locations: Teach the location branch 0 where an object is and 1 elsewhere, as mmdetection 3.3 does
            against the paper: its labels count the object as class 0 of one. To go on training its checkpoints.
    """

    def __init__(
        self,
        dense: DenseCriterion,
        *,
        shape_assigner: Assign | None = None,
        shape_sampler: Sample | None = None,
        location_assigner: LocationAssigner | None = None,
        shape_weight: float = 1.0,
        location_weight: float = 1.0,
        beta: float = 0.2,
        inverted_locations: bool = False,
    ) -> None:
        super().__init__()
        self.dense = dense
        self.shape_assigner = ApproxMaxIoUAssigner() if shape_assigner is None else shape_assigner
        self.shape_sampler = Sampler(number=256) if shape_sampler is None else shape_sampler
        self.location_assigner = LocationAssigner() if location_assigner is None else location_assigner
        self.shape_weight = shape_weight
        self.location_weight = location_weight
        self.beta = beta
        self.inverted_locations = inverted_locations

    def forward(self, predictions: DensePredictions, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses: those of `DenseCriterion`, ``shape`` and ``location``; train on their sum."""
        return self.by_level(predictions, targets).terms

    def by_level(self, predictions: DensePredictions, targets: Targets) -> LevelLosses:
        """The same losses, each split by pyramid level.

        Raises:
            ValueError: If the predictions have no guides.
        """
        guides = predictions.guides
        if guides is None:
            raise ValueError("these predictions have no guides: use a head with guided anchors, or DenseCriterion")
        levels, num_levels = predictions.grid.levels, len(predictions.grid.sizes)
        report = self.dense.by_level(predictions, targets)

        assignment = self.shape_sampler(self.shape_assigner(predictions, targets))
        is_positive = assignment.is_positive
        squares = predictions.grid.anchors.expand(len(is_positive), -1, -1)
        wanted = assignment.of_rows(targets.boxes).where(is_positive[..., None], squares)
        shapes = bounded_iou_loss(guide_anchors(squares, guides.shapes), wanted, beta=self.beta).sum(dim=2)
        shapes = (shapes * assignment.of_rows(targets.weights)).where(is_positive, 0)
        num_drawn = is_positive.sum(dim=1).clamp(min=1) + assignment.is_negative.sum(dim=1).clamp(min=1)
        num_drawn = mean_over_processes(num_drawn.sum().float())

        places = self.location_assigner(predictions, targets)
        answer = 1 - places.wanted if self.inverted_locations else places.wanted
        locations = focal(guides.locations, answer) * places.weights
        num_cells = locations.numel() / CELLS_PER_LOCATION
        return replace(
            report,
            losses={
                **report.losses,
                "shape": self.shape_weight * sum_by_level(shapes, levels, num_levels) / num_drawn,
                "location": self.location_weight * sum_by_level(locations, levels, num_levels) / num_cells,
            },
        )
