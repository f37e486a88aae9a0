"""Candidates -> detections: threshold, best class a box, suppression per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pyrafuse.base.boxes import clip_boxes
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import check_count
from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.ops.suppression import class_aware_nms, class_aware_soft_nms, vote_boxes
from pyrafuse.postprocess.registry import DECODERS, SELECTIONS

Kept = tuple[Tensor, Tensor]
"""Indices, best first, and their scores."""


@DECODERS.register("dense")
def decode_dense(predictions: DensePredictions, *, coder: BoxCoder) -> Candidates:
    """Boxes in pixels, scores of the classes and qualities; guided anchors in unlikely places score nothing."""
    scores = predictions.classes.sigmoid()
    guides = predictions.guides
    if guides is not None:
        scores = scores * (guides.locations.sigmoid() >= guides.least_location)[..., None]
    return Candidates(
        boxes=coder.decode(predictions.anchors, predictions.deltas),
        scores=scores,
        levels=predictions.grid.levels,
        quality=None if predictions.quality is None else predictions.quality.sigmoid(),
    )


@SELECTIONS.register("suppression")
@dataclass(frozen=True)
class DensePostprocess:
    """Keep what scores, drop what a better box of the same class covers.

    Attributes:
        score: Least score that is kept; with ``multi_label`` it must be exceeded, so that 0 drops what scores nothing.
        nms_iou: Boxes of one class that overlap by more are one object.
        max_detections: Kept an image, the best first; 0 keeps all.
        max_candidates: Boxes an image that suppression looks at, the best first; bounds its time in crowded images.
        multi_label: Let a box stand for every class that scores, instead of its best one.
        max_per_level: Of each pyramid level, the best pairs of box and class that are looked at; 0 takes all.
        max_pairs: Of all levels together, likewise.
        max_pairs_per_class: Of each class, likewise, and before these two; all that score the same as the last of them
            are looked at, too.
        clip: Cut boxes at the borders of the image, and drop what lies outside.
        joint_quality: What is compared with the threshold is the geometric mean of score and quality (torchvision's
            FCOS); else the score alone, which the quality multiplies afterwards.
        suppression: ``soft`` lowers the scores of covered boxes instead of dropping them, see `soft_nms`; it alone
            reads what follows.
        pixel_offset: Pixels of the image itself that are added to width and height where boxes are compared.
        max_per_class: Kept of a class; 0 keeps all.
        labels: The classes that are kept; empty keeps all.
        vote_iou: A box that is kept becomes the mean of all that overlap it by as much, see `vote_boxes`; 0 leaves it.

    Raises:
        ValueError: If ``suppression`` is another one, or one of those that count is no whole number of 0 or more
            (``max_candidates``: of 1 or more).
    """

    score: float = 0.01
    nms_iou: float = 0.65
    max_detections: int = 300
    max_candidates: int = 10_000
    multi_label: bool = False
    max_per_level: int = 0
    max_pairs: int = 0
    max_pairs_per_class: int = 0
    clip: bool = False
    joint_quality: bool = False
    suppression: Literal["hard", "soft"] = "hard"
    pixel_offset: float = 0.0
    max_per_class: int = 0
    vote_iou: float = 0.0
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.suppression not in ("hard", "soft"):
            raise ValueError(f"suppression is hard or soft, not {self.suppression!r}")
        for name in ("max_detections", "max_per_level", "max_pairs", "max_pairs_per_class", "max_per_class"):
            check_count(name, getattr(self, name))
        check_count("max_candidates", self.max_candidates, 1)

    def __call__(
        self,
        candidates: Candidates,
        sizes: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[tuple[float, float]] | None = None,
    ) -> tuple[Detections, ...]:
        """One `Detections` an image, in pixels of the network's input, of which it takes up ``sizes``.

        Args:
            candidates: Of the whole batch.
            sizes: Height and width of each image, needed to clip.
            scales: Network pixels that a pixel of each image takes up across and down, which ``pixel_offset`` is of;
                1 by default.
        """
        return tuple(
            self._of_image(
                i, candidates, None if sizes is None else sizes[i], (1.0, 1.0) if scales is None else scales[i]
            )
            for i in range(len(candidates.boxes))
        )

    def _of_image(
        self, image: int, candidates: Candidates, size: tuple[int, int] | None, scale: tuple[float, float]
    ) -> Detections:
        boxes, scores = candidates.boxes[image], candidates.scores[image]
        of_rows = candidates.levels if candidates.levels.ndim == 1 else candidates.levels[image]
        quality = None if candidates.quality is None else candidates.quality[image]
        if self.joint_quality and quality is not None:
            scores, quality = (scores * quality[:, None]).sqrt(), None
        if 0 < self.max_pairs_per_class < len(scores):
            least = scores.topk(self.max_pairs_per_class, dim=0).values[-1]
            scores = scores.where(scores >= least, -1)  # below any threshold, 0 too
        if self.multi_label:
            rows, labels = (scores > self.score).nonzero().unbind(1)
            best = scores[rows, labels]
        else:
            best, labels = scores.max(dim=1)
            rows = (best >= self.score).nonzero().squeeze(1)
            best, labels = best[rows], labels[rows]
        if self.labels:
            is_wanted = torch.isin(labels, labels.new_tensor(self.labels))
            best, rows, labels = best[is_wanted], rows[is_wanted], labels[is_wanted]
        if self.max_per_level:
            order = self._best_of_levels(best, of_rows[rows])
            best, rows, labels = best[order], rows[order], labels[order]
        if self.max_pairs and len(best) > self.max_pairs:
            best, order = best.topk(self.max_pairs)
            rows, labels = rows[order], labels[order]
        if quality is not None:
            best = best * quality[rows]
        boxes, levels = boxes[rows] if boxes.ndim == 2 else boxes[rows, labels], of_rows[rows]
        if self.clip and size is not None:
            boxes = clip_boxes(boxes, size)
            is_inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            best, boxes, labels, levels = best[is_inside], boxes[is_inside], labels[is_inside], levels[is_inside]
            rows = rows[is_inside]
        if len(best) > self.max_candidates:
            best, order = best.topk(self.max_candidates)
            boxes, labels, levels, rows = boxes[order], labels[order], levels[order], rows[order]
        kept, final = self._suppress(boxes, best, labels, scale)
        if self.max_detections:
            kept, final = kept[: self.max_detections], final[: self.max_detections]
        found = vote_boxes(boxes[kept], boxes, best, iou=self.vote_iou) if self.vote_iou else boxes[kept]
        return Detections(boxes=found, scores=final, labels=labels[kept], levels=levels[kept], rows=rows[kept])

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, scale: tuple[float, float]) -> Kept:
        if self.suppression == "hard":
            kept = class_aware_nms(boxes, scores, labels, iou=self.nms_iou)
            return kept, scores[kept]
        offset = (self.pixel_offset * scale[0], self.pixel_offset * scale[1])
        most = self.max_per_class
        return class_aware_soft_nms(boxes, scores, labels, iou=self.nms_iou, pixel_offset=offset, most=most)

    def _best_of_levels(self, scores: Tensor, levels: Tensor) -> Tensor:
        """Indices of the best ``max_per_level`` of each level."""
        kept = []
        for level in levels.unique():
            rows = (levels == level).nonzero().squeeze(1)
            kept.append(rows[scores[rows].topk(min(self.max_per_level, len(rows))).indices])
        return torch.cat(kept) if kept else levels[:0]
