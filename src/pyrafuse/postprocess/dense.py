"""Candidates -> detections: threshold, best class a box, suppression per class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import check_count
from pyrafuse.core.predictions import Candidates, DensePredictions
from pyrafuse.ops.boxes import clip_in_batch, has_area, take
from pyrafuse.ops.coders import BoxCoder
from pyrafuse.ops.suppression import matrix_nms, nms_of_batch, soft_nms, vote_boxes
from pyrafuse.postprocess.pairs import (
    Pairs,
    best_of_levels,
    best_pairs,
    limit_levels,
    only_rows,
    passing_rows,
    rank,
)
from pyrafuse.postprocess.registry import DECODERS, SELECTIONS
from pyrafuse.postprocess.selected import Selected

Suppression = Literal["hard", "soft", "matrix"]


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
        counts=predictions.grid.counts,
    )


@SELECTIONS.register("suppression")
@dataclass(frozen=True)
class DensePostprocess:
    """Keep what scores, drop what a better box of the same class covers.

    Attributes:
        score: Least score that is kept; with ``multi_label`` it must be exceeded, so that 0 drops what scores nothing.
        nms_iou: Boxes of one class that overlap by more are one object.
        max_detections: Maximum number of detections per image, the best first; 0 keeps all.
        max_candidates: Boxes an image that suppression looks at, the best first; bounds its time in crowded images.
        multi_label: Let a box stand for every class that scores, instead of its best one.
        max_per_level: Largest number of pairs of box and class of each level; 0 takes all.
        max_pairs: Largest number of pairs of all levels together; 0 takes all.
        max_pairs_per_class: Largest number of pairs of each class, before these two; all that score the same as the
            last of them are looked at, too.
        clip: Cut boxes at the borders of the image, and drop what lies outside.
        joint_quality: What is compared with the threshold is the geometric mean of score and quality (torchvision's
            FCOS); else the score alone, which the quality multiplies afterwards.
        suppression: ``hard`` drops covered boxes. ``soft`` lowers their scores one after the other, see `soft_nms`.
            ``matrix`` lowers them all at once, see `matrix_nms`: it reads no ``nms_iou``, and drops boxes whose score
            falls below ``score``.
        pixel_offset: Pixels of the image itself that ``soft`` adds to width and height where it compares boxes.
        max_per_class: Maximum number of boxes per class that ``soft`` keeps; 0 keeps all.
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
    suppression: Suppression = "hard"
    pixel_offset: float = 0.0
    max_per_class: int = 0
    vote_iou: float = 0.0
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.suppression not in get_args(Suppression):
            raise ValueError(f"suppression is hard, soft or matrix, not {self.suppression!r}")
        for name in ("max_detections", "max_per_level", "max_pairs", "max_pairs_per_class", "max_per_class"):
            check_count(name, getattr(self, name))
        check_count("max_candidates", self.max_candidates, 1)

    def __call__(
        self,
        candidates: Candidates,
        sizes: Sequence[tuple[int, int]] | None = None,
        scales: Sequence[tuple[float, float]] | None = None,
    ) -> tuple[Detections, ...]:
        """One `Detections` per image, in main memory and in pixels of the network's input; arguments as in `select`."""
        device = candidates.boxes.device
        return self._select_all(
            candidates,
            None if sizes is None else torch.tensor(sizes).to(device, non_blocking=True),
            None if scales is None else torch.tensor(scales).to(device, non_blocking=True),
            None,
        ).to_detections()

    def select(
        self,
        candidates: Candidates,
        sizes: Tensor | None = None,
        scales: Tensor | None = None,
        least: Tensor | None = None,
    ) -> Selected:
        """The best of each image, in ``max_detections`` places.

        Of equal scores the lower row comes first, then the lower class; which of them pass at a limit is left open.
        Shapes follow from the settings and the candidates' shapes. On a CPU alone, steps in between leave out places
        that no image fills.

        Args:
            candidates: Candidates of the whole batch.
            sizes: (B, 2) height and width that each image takes up of the network's input, needed to clip.
            scales: (B, 2) network pixels that a pixel of each image takes up across and down, the unit of
                ``pixel_offset``; 1 by default.
            least: (B,) least score of each image, in place of ``score``.
        """
        return self._select_all(candidates, sizes, scales, least).in_places(self.max_detections)

    def _select_all(
        self, candidates: Candidates, sizes: Tensor | None, scales: Tensor | None, least: Tensor | None
    ) -> Selected:
        """As `select`, in as many places as were found."""
        sizes = sizes if self.clip else None
        limit = self.score if least is None else least[:, None, None]
        rows = None
        if self.multi_label and not (self.joint_quality or self.max_per_level or self.max_pairs_per_class):
            rows = passing_rows(candidates.scores, limit)
        if rows is None:
            return self._select(candidates, sizes, scales, limit)
        selected = self._select(only_rows(candidates, rows), sizes, scales, limit)
        return replace(selected, rows=rows.gather(1, selected.rows))

    def reads_score_early(self, candidates: Candidates) -> bool:
        """Whether a higher ``score`` gives other detections than those of a lower one that score as much."""
        is_weighed = candidates.quality is not None and not self.joint_quality
        return is_weighed or self.suppression == "soft" or self.vote_iou > 0

    def choose(self, candidates: Candidates, sizes: Tensor | None = None) -> Selected:
        """What suppression chooses from, in any order: the best class of each box, or with ``multi_label`` each one.

        Arguments as in `select`. ``max_candidates`` is applied only where a box has several classes.
        """
        sizes = sizes if self.clip else None
        most = self.max_candidates if self.multi_label else 0
        pairs = self._choose(candidates, sizes, self.score, most)
        return _selected(candidates, pairs, _boxes_of(candidates, pairs, sizes)).in_places(0)

    def _choose(self, candidates: Candidates, sizes: Tensor | None, least: float | Tensor, most: int) -> Pairs:
        """The best ``most`` pairs that pass, or all, with the scores that suppression compares."""
        scores, labels = self._score(candidates, least)
        quality = None if self.joint_quality else candidates.quality
        if self.max_per_level or self.max_pairs:
            pairs = self._limit(scores, candidates).name(labels)
            if quality is not None:
                pairs = pairs.weigh(quality.gather(1, pairs.rows))
            if sizes is not None:
                pairs = pairs.only(has_area(_boxes_of(candidates, pairs, sizes)))
            return pairs.best(most)
        if quality is not None:
            scores = (scores * quality[..., None]).where(scores >= 0, -1)
        if sizes is not None:
            scores = scores.where(_lies_inside(candidates.boxes, labels, sizes), -1)
        return best_pairs(scores, most).name(labels)

    def _select(
        self, candidates: Candidates, sizes: Tensor | None, scales: Tensor | None, least: float | Tensor
    ) -> Selected:
        """As `select`, in as many places as are filled; ``least`` is one score, or (B, 1, 1)."""
        pairs = rank(self._choose(candidates, sizes, least, self.max_candidates), candidates.scores.shape[2])
        boxes = _boxes_of(candidates, pairs, sizes)
        final = self._suppress(boxes, pairs, scales, candidates.scores.shape[2], least)
        order = final.argsort(dim=1, descending=True, stable=True)[:, : self.max_detections or None]
        kept, found = Pairs(final, pairs.rows, pairs.classes).take(order), take(boxes, order)
        if self.vote_iou:
            found = vote_boxes(found, boxes, pairs.scores.clamp(min=0), iou=self.vote_iou)
        return _selected(candidates, kept, found)

    def _score(self, candidates: Candidates, least: float | Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (B, A, C), below 0 where they do not pass; of best classes (B, A, 1), and their labels (B, A)."""
        scores = candidates.scores
        if self.joint_quality and candidates.quality is not None:
            scores = (scores * candidates.quality[..., None]).sqrt()
        if 0 < self.max_pairs_per_class < scores.shape[1]:
            last = scores.topk(self.max_pairs_per_class, dim=1).values[:, -1:]
            scores = scores.where(scores >= last, -1)  # below any threshold, 0 too
        wanted = torch.tensor(self.labels, device=scores.device)
        if self.multi_label:
            passes = scores > least
            if self.labels:
                passes &= torch.isin(torch.arange(scores.shape[2], device=scores.device), wanted)
            return scores.where(passes, -1), None
        best, labels = scores.max(dim=2, keepdim=True)
        passes = best >= least
        if self.labels:
            passes &= torch.isin(labels, wanted)
        return best.where(passes, -1), labels[..., 0]

    def _limit(self, scores: Tensor, candidates: Candidates) -> Pairs:
        """The best pairs of each level, and of all levels together."""
        if not self.max_per_level:
            return best_pairs(scores, self.max_pairs)
        if candidates.counts:
            pairs = best_of_levels(scores, candidates.counts, self.max_per_level)
        else:
            pairs = rank(best_pairs(scores), scores.shape[2])
            pairs = limit_levels(pairs, _levels_of(candidates, pairs.rows), self.max_per_level)
        return pairs.best(self.max_pairs)

    def _suppress(
        self, boxes: Tensor, pairs: Pairs, scales: Tensor | None, num_classes: int, least: float | Tensor
    ) -> Tensor:
        """The final scores (B, N), below 0 where suppression drops a box."""
        scores, labels = pairs.scores, pairs.classes
        if self.suppression == "hard":
            return scores.where(
                nms_of_batch(boxes, labels, scores >= 0, iou=self.nms_iou, most=self.max_detections), -1
            )
        if self.suppression == "matrix":
            decayed = matrix_nms(boxes, scores, labels)
            return decayed.where((scores >= 0) & (decayed[..., None] >= least)[..., 0], -1)
        sides = boxes.new_full((1, 1, 2), self.pixel_offset)
        sides = sides if scales is None else sides * scales[:, None]
        grown = torch.cat((boxes[..., :2], boxes[..., 2:] + sides), dim=-1)
        # the best of all hold no more of a class than the best of the class
        most = min(filter(None, (self.max_per_class, self.max_detections)), default=0)
        return soft_nms(grown, scores, labels, num_labels=num_classes, method="linear", iou=self.nms_iou, most=most)


def _selected(candidates: Candidates, pairs: Pairs, boxes: Tensor) -> Selected:
    return Selected(
        rows=pairs.rows,
        boxes=boxes,
        scores=pairs.scores,
        labels=pairs.classes,
        levels=_levels_of(candidates, pairs.rows),
        valid=pairs.scores >= 0,
    )


def _boxes_of(candidates: Candidates, pairs: Pairs, sizes: Tensor | None) -> Tensor:
    """(B, N, 4), cut at ``sizes`` where these are given."""
    boxes, rows = candidates.boxes, pairs.rows
    if boxes.ndim == 4:
        boxes, rows = boxes.flatten(1, 2), rows * boxes.shape[2] + pairs.classes
    boxes = take(boxes, rows)
    return boxes if sizes is None else clip_in_batch(boxes, sizes)


def _lies_inside(boxes: Tensor, labels: Tensor | None, sizes: Tensor) -> Tensor:
    """(B, A, C or 1): any of the box lies within its image."""
    inside = has_area(clip_in_batch(boxes, sizes))
    if inside.ndim == 2:
        return inside[..., None]
    return inside if labels is None else inside.gather(2, labels[..., None])


def _levels_of(candidates: Candidates, rows: Tensor) -> Tensor:
    levels = candidates.levels
    return levels[rows] if levels.ndim == 1 else levels.gather(1, rows)
