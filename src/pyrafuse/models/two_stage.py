"""How every two-stage detector is put together: a region proposal network, then one or more cascade stages.

images -> backbone -> neck -> RPN -> proposals -> (sampled for the targets) -> stage -> (refined -> stage ...)
-> `TwoStagePredictions` -> detections
"""

from collections.abc import Callable, Sequence
from copy import copy

from torch import Tensor, nn

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.base.registry import Registry
from pyrafuse.core.assignment import Assignment
from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.core.pyramid import Backbone, Neck, Pyramid
from pyrafuse.core.regions import Regions, TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.heads.regions import RegionHead
from pyrafuse.heads.registry import ROI_HEADS
from pyrafuse.heads.rpn import RPNHead
from pyrafuse.models.detector import Detector, Sizes
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.ops.registry import CODERS
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.regions import refine
from pyrafuse.samplers.regions import RegionSampler
from pyrafuse.samplers.registry import SAMPLERS
from pyrafuse.samplers.sampling import Sampler

STAGES: "Registry[RegionStage]" = Registry("stage", "pyrafuse.models")

Proposing = Callable[[DensePredictions, Sizes], Regions]
"""(predictions of the region proposal network, height and width of each image) -> proposals."""


class RegionStage(nn.Module):
    """One cascade stage: an RoI head and what belongs to it.

    Args:
        head: Head that predicts class and box of each RoI.
        coder: Coder of its boxes.
        sampler: Which regions it learns from.
        weight: Weight of its losses in the sum (Cascade R-CNN, arXiv:1712.00726, section 4).
    """

    def __init__(self, *, head: RegionHead, coder: BoxCoder, sampler: RegionSampler, weight: float = 1.0) -> None:
        super().__init__()
        self.head = head
        self.coder = coder
        self.sampler = sampler
        self.weight = weight


@STAGES.register("roi", parts={"head": ROI_HEADS, "coder": CODERS, "assigner": ASSIGNERS, "sampler": SAMPLERS})
def roi_stage(
    *,
    head: RegionHead,
    coder: BoxCoder,
    assigner: MaxIoUAssigner,
    sampler: Sampler,
    add_objects: bool = True,
    weight: float = 1.0,
) -> RegionStage:
    """A stage and the regions that it learns from.

    Args:
        head: Head that predicts class and box of each RoI.
        coder: Coder of its boxes.
        assigner: Assigner that matches regions to objects.
        sampler: How many of them are drawn, and how.
        add_objects: Let the objects' own boxes be drawn, too.
        weight: Weight of its losses in the sum.
    """
    drawn = RegionSampler(assigner=assigner, sampler=sampler, add_objects=add_objects)
    return RegionStage(head=head, coder=coder, sampler=drawn, weight=weight)


class TwoStageDetector(Detector[TwoStagePredictions]):
    """A two-stage detector, or a cascade of more: proposals, and RoI heads that judge and move them.

    With targets, proposals are those to learn from, and each stage gets a sample of its regions; without, all of them.
    The mode, training or evaluation, steers neither.

    On a GPU the host waits once an image, for the suppression of its proposals, and nowhere else.

    Args:
        backbone: Images -> pyramid.
        neck: Pyramid -> pyramid.
        head: Pyramid -> proposals.
        stages: Cascade stages in their order.
        propose: Chooses the regions to detect in.
        propose_to_learn: Chooses those to sample from.
        criterion: (predictions, targets) -> losses; used by training alone.
        decode: Predictions -> candidates.
        postprocess: Candidates -> detections, with the default thresholds.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: RPNHead,
        stages: Sequence[RegionStage],
        *,
        decode: Callable[[TwoStagePredictions], Candidates],
        propose: Proposing,
        propose_to_learn: Proposing,
        criterion: nn.Module,
        postprocess: DensePostprocess,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            head,
            decode=decode,
            criterion=criterion,
            postprocess=postprocess,
        )
        self.stages = nn.ModuleList(stages)
        self.propose: Proposing = propose
        self.propose_to_learn: Proposing = propose_to_learn

    def forward(
        self,
        images: Tensor,
        targets: Targets | None = None,
        *,
        sizes: Sizes | None = None,
    ) -> TwoStagePredictions:
        """Predictions for normalised ``images`` (B, 3, H, W).

        Args:
            images: Normalised images.
            targets: What will be learnt; regions are sampled for it, if given.
            sizes: Height and width that each image takes up of the input; regions end there. By default all of it.
        """
        sizes = _whole(images) if sizes is None else sizes
        pyramid = self.pyramid(images)
        return self._run_stages(pyramid, self.head(pyramid), targets, sizes)

    def predict_and_learn(
        self, images: Tensor, targets: Targets, *, sizes: Sizes | None = None
    ) -> tuple[TwoStagePredictions, TwoStagePredictions]:
        """Predictions for all proposals, and for a sample of them drawn for ``targets``.

        Backbone, neck and proposals are computed once. Arguments as in forward.
        """
        sizes = _whole(images) if sizes is None else sizes
        pyramid = self.pyramid(images)
        proposals = self.head(pyramid)
        return self._run_stages(pyramid, proposals, None, sizes), self._run_stages(pyramid, proposals, targets, sizes)

    def _run_stages(
        self,
        pyramid: Pyramid,
        proposals: DensePredictions,
        targets: Targets | None,
        sizes: Sizes,
    ) -> TwoStagePredictions:
        regions = (self.propose if targets is None else self.propose_to_learn)(proposals, sizes)
        found, assignments = [], []
        for number, stage in enumerate(self.stages, 1):
            assert isinstance(stage, RegionStage)
            if targets is not None:
                regions, assignment = stage.sampler(regions, targets)
                assignments.append(assignment)
            found.append(stage.head(pyramid, regions))
            if number < len(self.stages):
                labels = _labels_to_refine_by(found[-1].levels, assignments, targets)
                regions = refine(found[-1], stage.coder, sizes, labels)
        return TwoStagePredictions(proposals=proposals, stages=tuple(found), assignments=tuple(assignments))

    def looking_into(self, regions: Regions) -> "TwoStageDetector":
        """The same detector, sharing all its parts, with ``regions`` as its proposals."""
        twin = copy(self)
        twin.propose = lambda *_: regions
        return twin


def _whole(images: Tensor) -> Sizes:
    """One size, for all of them."""
    return [(images.shape[-2], images.shape[-1])]


def _labels_to_refine_by(like: Tensor, assignments: Sequence[Assignment], targets: Targets | None) -> Tensor:
    """Labels (B, R) of the last sample's objects, negative where there is none."""
    if targets is None:
        return like.new_full(like.shape, -1)
    return assignments[-1].of_rows(targets.labels).where(assignments[-1].is_positive, -1)
