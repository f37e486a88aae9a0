"""From stage to stage of a two-stage detector: anchors -> proposals, regions -> refined regions -> candidates.

Ren et al., "Faster R-CNN", arXiv:1506.01497; Cai and Vasconcelos, "Cascade R-CNN", arXiv:1712.00726, section 4.
best anchors of each level -> decoded, clipped -> suppressed level by level -> best of the image
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrafuse.base.errors import check_count
from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.core.regions import RegionPredictions, Regions, TwoStagePredictions
from pyrafuse.core.tracing import is_traced
from pyrafuse.ops.boxes import clip_in_batch, has_area, take
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.ops.suppression import nms_of_batch
from pyrafuse.postprocess.pairs import best_of
from pyrafuse.postprocess.registry import DECODERS, PROPOSALS


@PROPOSALS.register("best")
@dataclass(frozen=True)
class Propose:
    """Choose the proposals.

    Attributes:
        coder: Coder of the boxes.
        max_per_level: Largest number of anchors of each level, the best ones.
        nms_iou: Overlap above which a box is dropped for a better one of the same level.
        max_regions: An image, the best of all levels.

    Raises:
        ValueError: If ``max_per_level`` or ``max_regions`` is no whole number of 1 or more.
    """

    coder: BoxCoder
    max_per_level: int = 1000
    nms_iou: float = 0.7
    max_regions: int = 1000

    def __post_init__(self) -> None:
        check_count("max_per_level", self.max_per_level, 1)
        check_count("max_regions", self.max_regions, 1)

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, sizes: Sequence[tuple[int, int]] | Tensor) -> Regions:
        """The best regions, at most `max_regions` rows, cut at each image's height and width in pixels."""
        scores = predictions.classes.amax(dim=2).sigmoid()
        scores, rows = self._best_of_levels(scores, predictions.grid.counts)
        anchors = predictions.anchors.expand(rows.shape[0], -1, -1)
        boxes = self.coder.decode(take(anchors, rows), take(predictions.deltas, rows))
        boxes = _clip(boxes, sizes)
        levels = predictions.grid.levels[rows]
        order = scores.argsort(dim=1, descending=True, stable=True)
        scores, boxes = scores.gather(1, order), take(boxes, order)
        is_filled = scores >= 0 if is_traced() else None  # outside a graph all are, and none is looked at
        survives = nms_of_batch(boxes, levels.gather(1, order), is_filled, iou=self.nms_iou)
        scores = scores.where(survives & has_area(boxes), -1)
        scores, order = scores.topk(min(self.max_regions, scores.shape[1]), dim=1)
        valid = scores >= 0
        return Regions(
            boxes=take(boxes, order).where(valid[..., None], 0),
            scores=scores.clamp(min=0),
            valid=valid,
            is_object=torch.zeros_like(valid),
        )

    def _best_of_levels(self, scores: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Scores and rows (B, N) of the best of each level; a graph fills levels up with scores below 0."""
        start, found = 0, []
        for of_level, count in zip(scores.split(counts, dim=1), counts, strict=True):
            most = self.max_per_level
            best, places = best_of(of_level, most) if is_traced() else of_level.topk(min(most, count), dim=1)
            found.append((best, places + start))
            start += count
        return torch.cat([best for best, _ in found], dim=1), torch.cat([rows for _, rows in found], dim=1)


@torch.no_grad()
def refine(
    predictions: RegionPredictions, coder: BoxCoder, sizes: Sequence[tuple[int, int]] | Tensor, labels: Tensor
) -> Regions:
    """The regions where their stage has moved them, cut at the borders; objects' own boxes are left out.

    Args:
        predictions: Predictions of the stage.
        coder: Its boxes'.
        sizes: Height and width of each image in pixels.
        labels: (B, R) int64, whose box to take where each class has its own; negative for the best class.
    """
    regions = predictions.regions
    best = predictions.classes[..., :-1].argmax(dim=2)
    deltas = predictions.deltas_of(labels.where(labels >= 0, best))
    valid = regions.valid & ~regions.is_object
    return Regions(
        boxes=_clip(coder.decode(regions.boxes, deltas), sizes).where(valid[..., None], 0),
        scores=regions.scores,
        valid=valid,
        is_object=torch.zeros_like(valid),
    )


@DECODERS.register("two_stage")
def decode_two_stage(predictions: TwoStagePredictions, *, coder: BoxCoder) -> Candidates:
    """Boxes of the last stage, by its ``coder``; scores by the mean of all stages' logits."""
    last = predictions.stages[-1]
    logits = torch.stack([stage.classes for stage in predictions.stages]).mean(dim=0)
    boxes = coder.decode(last.regions.boxes[:, :, None], last.deltas)
    scores = logits.softmax(dim=2)[..., :-1]
    return Candidates(
        boxes=boxes[:, :, 0] if boxes.shape[2] == 1 else boxes,
        scores=scores.where(last.regions.valid[..., None], 0),
        levels=last.levels,
    )


def _clip(boxes: Tensor, sizes: Sequence[tuple[int, int]] | Tensor) -> Tensor:
    if not isinstance(sizes, Tensor):
        sizes = torch.tensor(sizes).to(boxes.device, non_blocking=True)
    return clip_in_batch(boxes, sizes)
