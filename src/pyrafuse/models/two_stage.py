"""How every detector that looks twice is put together: a first look for regions, then one or more looks into them.

images -> backbone -> neck -> RPN -> proposals -> (sampled for the targets) -> stage -> (refined -> stage ...)
-> `TwoStagePredictions` -> detections
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from pyrafuse.assigners.max_iou import MaxIoUAssigner
from pyrafuse.core.assignment import Assignment
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import Backbone, Neck, Pyramid
from pyrafuse.core.regions import Regions, TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.dense import DenseCriterion
from pyrafuse.criteria.two_stage import RegionCriterion, TwoStageCriterion, objectness_loss
from pyrafuse.heads.regions import RegionHead
from pyrafuse.heads.rpn import RPNHead
from pyrafuse.models.dense import TESTED, choose_box_loss
from pyrafuse.models.detector import Detector
from pyrafuse.ops.coders import BoxCoder, DeltaCoder
from pyrafuse.postprocess.dense import DensePostprocess
from pyrafuse.postprocess.regions import Propose, decode_two_stage, refine
from pyrafuse.samplers.regions import RegionSampler
from pyrafuse.samplers.sampling import InstanceBalancedPositives, IoUBalancedNegatives, Sampler, draw_at_random

Options = Mapping[str, Any]
NO_OPTIONS: Options = MappingProxyType({})

PROPOSAL_CODER = DeltaCoder()

Proposing = Callable[[DensePredictions, Sequence[tuple[int, int]]], Regions]
"""(what the first look said, height and width of each image) -> where to look."""


@dataclass(frozen=True)
class StageSettings:
    """What tells one look into the regions from the next (Cascade R-CNN, arXiv:1712.00726, section 4).

    Attributes:
        positive_iou: Least overlap at which a region answers for an object; below it shall find nothing.
        stds: Of its box deltas.
        weight: Of its losses in the sum.
    """

    positive_iou: float = 0.5
    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    weight: float = 1.0

    @property
    def coder(self) -> BoxCoder:
        """Of its boxes."""
        return DeltaCoder(stds=self.stds)


@dataclass(frozen=True)
class TwoStageParts:
    """What tells one detector from another.

    Attributes:
        stages: Looks into the regions.
    """

    stages: tuple[StageSettings, ...] = (StageSettings(),)


class RegionStage(nn.Module):
    """One look into the regions.

    Args:
        head: What looks.
        coder: Of its boxes.
        sampler: Of the regions that it learns from.
    """

    def __init__(self, head: RegionHead, *, coder: BoxCoder, sampler: RegionSampler) -> None:
        super().__init__()
        self.head = head
        self.coder = coder
        self.sampler = sampler


class TwoStageDetector(Detector[TwoStagePredictions]):
    """A detector that looks again into the regions that it has found.

    With targets, proposals are those to learn from, and each stage gets a sample of its regions; without, all of them.
    The mode, training or evaluation, steers neither.

    On a GPU the host waits once an image, for the suppression of its proposals, and nowhere else.

    Args:
        backbone: Images -> pyramid.
        neck: Pyramid -> pyramid.
        head: Pyramid -> proposals.
        stages: Of the looks into the regions, in their order.
        propose: Chooses the regions to detect in.
        propose_to_learn: Chooses those to sample from.
        criterion: (predictions, targets) -> losses; used by training alone.
        postprocess: Candidates -> detections, with the default thresholds.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: Neck,
        head: RPNHead,
        stages: Sequence[RegionStage],
        *,
        propose: Proposing,
        propose_to_learn: Proposing,
        criterion: nn.Module,
        postprocess: DensePostprocess,
    ) -> None:
        super().__init__(
            backbone,
            neck,
            head,
            decode=partial(decode_two_stage, coder=stages[-1].coder),
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
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> TwoStagePredictions:
        """Predictions for normalised ``images`` (B, 3, H, W).

        Args:
            images: Normalised.
            targets: What will be learnt; regions are sampled for it, if given.
            sizes: Height and width that each image takes up of the input; regions end there. By default all of it.
        """
        sizes = sizes or [(images.shape[-2], images.shape[-1])] * len(images)
        pyramid = self.pyramid(images)
        return self._run_stages(pyramid, self.head(pyramid), targets, sizes)

    def predict_and_learn(
        self, images: Tensor, targets: Targets, *, sizes: Sequence[tuple[int, int]] | None = None
    ) -> tuple[TwoStagePredictions, TwoStagePredictions]:
        """Predictions for all proposals, and for a sample of them drawn for ``targets``.

        Backbone, neck and proposals are computed once. Arguments as in forward.
        """
        sizes = sizes or [(images.shape[-2], images.shape[-1])] * len(images)
        pyramid = self.pyramid(images)
        proposals = self.head(pyramid)
        return self._run_stages(pyramid, proposals, None, sizes), self._run_stages(pyramid, proposals, targets, sizes)

    def _run_stages(
        self,
        pyramid: Pyramid,
        proposals: DensePredictions,
        targets: Targets | None,
        sizes: Sequence[tuple[int, int]],
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
        """The same detector, sharing all its parts, that looks into ``regions`` and not for others."""
        twin = copy(self)
        twin.propose = lambda *_: regions
        return twin


def _labels_to_refine_by(like: Tensor, assignments: Sequence[Assignment], targets: Targets | None) -> Tensor:
    """Labels (B, R) of the last sample's objects, negative where there is none."""
    if targets is None:
        return like.new_full(like.shape, -1)
    return assignments[-1].of_rows(targets.labels).where(assignments[-1].is_positive, -1)


def two_stage_detector(
    trunk: Backbone,
    fusion: Neck,
    num_classes: int,
    *,
    parts: TwoStageParts,
    head_options: Options = NO_OPTIONS,
    region_options: Options = NO_OPTIONS,
    proposal_options: Options = NO_OPTIONS,
    learning_proposal_options: Options = NO_OPTIONS,
    sampling_options: Options = NO_OPTIONS,
    criterion_options: Options = NO_OPTIONS,
    postprocess_options: Options = NO_OPTIONS,
    defaults: Mapping[str, Options] = NO_OPTIONS,
) -> TwoStageDetector:
    """A detector of two stages or more, on any trunk and neck.

    Args:
        trunk: Images -> pyramid.
        fusion: Pyramid -> pyramid; all levels must have the same channels.
        num_classes: K.
        parts: Which one.
        head_options: Keyword arguments of `RPNHead`.
        region_options: Keyword arguments of each `RegionHead`.
        proposal_options: Keyword arguments of `Propose`.
        learning_proposal_options: The same for the regions to learn from; twice as many a level by default.
        sampling_options: Those of `region_sampler`.
        criterion_options: Those of `two_stage_criterion`.
        postprocess_options: Keyword arguments of `DensePostprocess`.
        defaults: What a variant gives in place of our own defaults: ``region``, ``learning_proposals``, ``sampling``
            and ``criterion`` options.

    Raises:
        ValueError: If the levels differ in channels, and as the parts do.
    """

    def with_defaults(part: str, options: Options) -> Options:
        return {**defaults.get(part, {}), **options}

    stages = [
        RegionStage(
            RegionHead(fusion.features, num_classes=num_classes, **with_defaults("region", region_options)),
            coder=stage.coder,
            sampler=region_sampler(stage.positive_iou, **with_defaults("sampling", sampling_options)),
        )
        for stage in parts.stages
    ]
    learning = {"max_per_level": 2000, **with_defaults("learning_proposals", learning_proposal_options)}
    testing = {**TESTED, "nms_iou": 0.5, "max_per_level": 0, **postprocess_options}
    return TwoStageDetector(
        trunk,
        fusion,
        RPNHead(fusion.features, **head_options),
        stages,
        propose=Propose(PROPOSAL_CODER, **proposal_options),
        propose_to_learn=Propose(PROPOSAL_CODER, **learning),
        criterion=two_stage_criterion(parts.stages, **with_defaults("criterion", criterion_options)),
        postprocess=DensePostprocess(**testing),
    )


def region_sampler(
    positive_iou: float,
    *,
    number: int = 512,
    positive_fraction: float = 0.25,
    add_objects: bool = True,
    instance_balanced: bool = False,
    iou_balanced: bool = False,
    num_bins: int = 3,
    floor: float = 0.0,
    floor_fraction: float = 0.0,
) -> RegionSampler:
    """The regions that a stage learns from.

    Args:
        positive_iou: Least overlap at which a region answers for an object; below it shall find nothing.
        number: Regions an image, at most.
        positive_fraction: Of these may be positive.
        add_objects: Let the objects' own boxes be drawn, too.
        instance_balanced: Draw as many positives for each object (Libra R-CNN).
        iou_balanced: Draw as many negatives from each of several bins of overlap (Libra R-CNN).
        num_bins: Of ``iou_balanced``; see `IoUBalancedNegatives`.
        floor: Likewise.
        floor_fraction: Likewise.
    """
    balanced = IoUBalancedNegatives(num_bins=num_bins, floor=floor, floor_fraction=floor_fraction)
    sampler = Sampler(
        number=number,
        positive_fraction=positive_fraction,
        positives=InstanceBalancedPositives() if instance_balanced else draw_at_random,
        negatives=balanced if iou_balanced else draw_at_random,
    )
    assigner = MaxIoUAssigner(positive_iou=positive_iou, negative_iou=positive_iou, match_best=False)
    return RegionSampler(assigner.assign, sampler, add_objects=add_objects)


def two_stage_criterion(
    stages: Sequence[StageSettings],
    *,
    proposal_assigner: Options = NO_OPTIONS,
    proposal_sampler: Options = NO_OPTIONS,
    proposal_box_loss: str = "l1",
    proposal_box_loss_options: Options = NO_OPTIONS,
    proposal_box_weight: float = 1.0,
    box_loss: str = "l1",
    box_loss_options: Options = NO_OPTIONS,
    class_weight: float = 1.0,
    box_weight: float = 1.0,
) -> TwoStageCriterion:
    """The losses.

    Args:
        stages: Looks into the regions.
        proposal_assigner: Keyword arguments of the anchors' `MaxIoUAssigner`.
        proposal_sampler: Keyword arguments of the anchors' `Sampler`.
        proposal_box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`, for the anchors.
        proposal_box_loss_options: Its keyword arguments.
        proposal_box_weight: Of the anchors' box loss in the sum.
        box_loss: A key of `DELTA_LOSSES` or `BOX_LOSSES`, for the regions.
        box_loss_options: Its keyword arguments.
        class_weight: Of the regions' class loss in the sum.
        box_weight: Of the regions' box loss.
    """
    anchors, anchors_decoded = choose_box_loss(proposal_box_loss, proposal_box_loss_options)
    loss, decoded = choose_box_loss(box_loss, box_loss_options)
    assigner = {"positive_iou": 0.7, "negative_iou": 0.3, "least_best_iou": 0.3, **proposal_assigner}
    proposals = DenseCriterion(
        assigner=MaxIoUAssigner(**assigner),
        coder=PROPOSAL_CODER,
        sampler=Sampler(**proposal_sampler),
        class_loss=objectness_loss,
        box_loss=anchors,
        decoded=anchors_decoded,
        box_weight=proposal_box_weight,
        over_samples=True,
    )
    regions = [
        RegionCriterion(
            coder=stage.coder, box_loss=loss, decoded=decoded, class_weight=class_weight, box_weight=box_weight
        )
        for stage in stages
    ]
    return TwoStageCriterion(proposals, regions, weights=[stage.weight for stage in stages])
