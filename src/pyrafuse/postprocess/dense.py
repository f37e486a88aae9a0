"""Candidates -> detections: threshold, best class a box, suppression per class."""

from dataclasses import dataclass

import torch

from pyrafuse.core.detections import Detections
from pyrafuse.core.predictions import Candidates
from pyrafuse.ops.suppression import class_aware_nms


@dataclass(frozen=True)
class DensePostprocess:
    """Keep what scores, drop what a better box of the same class covers.

    Attributes:
        score: Least score that is kept.
        nms_iou: Boxes of one class that overlap by more are one object.
        max_detections: Kept an image, the best first; 0 keeps all.
        max_candidates: Boxes an image that suppression looks at, the best first; bounds its time in crowded images.
        multi_label: Let a box stand for every class that scores, instead of its best one.
    """

    score: float = 0.01
    nms_iou: float = 0.65
    max_detections: int = 300
    max_candidates: int = 10_000
    multi_label: bool = False

    def __call__(self, candidates: Candidates) -> tuple[Detections, ...]:
        """One `Detections` an image, in pixels of the network's input."""
        return tuple(
            self._of_image(boxes, scores, candidates)
            for boxes, scores in zip(candidates.boxes, candidates.scores, strict=True)
        )

    def _of_image(self, boxes: torch.Tensor, scores: torch.Tensor, candidates: Candidates) -> Detections:
        if self.multi_label:
            rows, labels = (scores >= self.score).nonzero().unbind(1)
            best = scores[rows, labels]
        else:
            best, labels = scores.max(dim=1)
            rows = (best >= self.score).nonzero().squeeze(1)
            best, labels = best[rows], labels[rows]
        if len(best) > self.max_candidates:
            best, order = best.topk(self.max_candidates)
            rows, labels = rows[order], labels[order]
        kept = class_aware_nms(boxes[rows], best, labels, iou=self.nms_iou)
        if self.max_detections:
            kept = kept[: self.max_detections]
        return Detections(
            boxes=boxes[rows[kept]],
            scores=best[kept],
            labels=labels[kept],
            levels=candidates.levels[rows[kept]],
        )
