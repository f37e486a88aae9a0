"""What several views of one image found, put together.

boxes of all views -> parts of objects that a tile's border cut, joined -> suppression or fusion across views
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrafuse.base.views.cutting import Merge

MERGE_IOU = 0.55
"""Overlap above which detections of two views are one object, as in the paper on weighted boxes fusion."""

BORDER_SHARE = 0.01
"""A box ends at a tile's border if it ends nearer to it than this share of the tile's side."""

CHUNK = 128
"""Boxes that are compared with others at a time."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Merged:
    """The M objects of an image, best first.

    Attributes:
        rows: (M,) the detection whose class and level each one has.
        boxes: (M, 4) xyxy in pixels of the image.
        scores: (M,) scores.
    """

    rows: Ints
    boxes: Floats
    scores: Floats


def merge(
    boxes: Floats,
    scores: Floats,
    labels: Ints,
    views: Ints,
    parts: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
    *,
    method: Merge,
) -> Merged:
    """Put together the N detections of all views of an image.

    A box that ends at a tile's border within the image is part of an object. It is compared with a box of another tile
    by what lies in both tiles. If that box ends at no border, the part is left out and the object has the better score.
    Parts that match each other become one box around them.

    Args:
        boxes: (N, 4) xyxy in pixels of the image.
        scores: (N,) scores.
        labels: (N,); boxes of two labels are never one object.
        views: (N,) the view that each one was found in.
        parts: Edges of each view in the image.
        size: Height and width of the image in pixels.
        method: ``nms`` keeps the best one of those of different views that overlap; what one view found is left as it
            is. ``wbf`` fuses boxes of different views (Solovyev et al., arXiv:1910.13302).
    """
    order = np.argsort(-scores, kind="stable")
    found = _Boxes(boxes[order], scores[order], labels[order], np.ones(len(order)), order)
    edges = np.asarray(parts, np.float64).reshape(-1, 4)
    joined, views = _join_parts(found, views[order], edges, size)
    kept = _fuse(joined, views, edges) if method == "wbf" else _suppress(joined, views)
    best = np.argsort(-kept.scores, kind="stable")
    return Merged(kept.rows[best], kept.boxes[best], kept.scores[best])


@dataclass(frozen=True)
class _Boxes:
    """N boxes (N, 4), best first, with how many detections each one stands for, and the row of the best of them."""

    boxes: Floats
    scores: Floats
    labels: Ints
    counts: Floats
    rows: Ints

    def __getitem__(self, rows: NDArray[Any]) -> "_Boxes":
        return _Boxes(self.boxes[rows], self.scores[rows], self.labels[rows], self.counts[rows], self.rows[rows])


def touching_pairs(boxes: Floats, labels: Ints) -> tuple[Ints, Ints]:
    """Rows (P,) and (P,) of all pairs of boxes (N, 4) of one label that share an area; the lower row comes first.

    Boxes are swept from left to right, so that time and memory follow the pairs and not the square of the boxes.
    """
    order = np.argsort(boxes[:, 0], kind="stable")
    left, top, right, bottom = boxes[order].T
    kinds = labels[order]
    firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start in range(0, len(boxes), CHUNK):
        own = np.arange(start, min(start + CHUNK, len(boxes)))
        end = int(np.searchsorted(left, right[own].max()))
        others = np.arange(start, max(start, end))
        touches = others > own[:, None]
        touches &= left[others] < right[own, None]
        touches &= np.minimum(bottom[others], bottom[own, None]) > np.maximum(top[others], top[own, None])
        touches &= kinds[others] == kinds[own, None]
        one, other = np.nonzero(touches)
        firsts.append(order[own[one]])
        seconds.append(order[others[other]])
    one, other = np.concatenate(firsts), np.concatenate(seconds)
    return np.minimum(one, other), np.maximum(one, other)


def paired_iou(boxes: Floats, others: Floats) -> Floats:
    """IoU (P,) of boxes (P, 4) and (P, 4); 0 where neither has an area."""
    shared = _area(_intersect(boxes, others))
    union = _area(boxes) + _area(others) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _intersect(boxes: Floats, others: Floats) -> Floats:
    return np.concatenate([np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])], axis=1)


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1)


def _ends_at_border(boxes: Floats, parts: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(N,) whether a box ends at an edge of its part that lies within the image."""
    height, width = size
    is_inner = np.stack([parts[:, 0] > 0, parts[:, 1] > 0, parts[:, 2] < width, parts[:, 3] < height], axis=1)
    sides = np.tile(parts[:, 2:] - parts[:, :2], 2)
    return np.any(is_inner & (np.abs(boxes - parts) <= BORDER_SHARE * sides), axis=1)


def _join_parts(found: _Boxes, views: Ints, edges: Floats, size: tuple[int, int]) -> tuple[_Boxes, Ints]:
    """The boxes with parts of objects joined, best first, and the view of each; negative for one of several views."""
    boxes, parts = found.boxes, edges[views]
    is_cut = _ends_at_border(boxes, parts, size)
    one, other = touching_pairs(boxes, found.labels)
    is_asked = (views[one] != views[other]) & (is_cut[one] | is_cut[other])
    one, other = one[is_asked], other[is_asked]
    both = _intersect(parts[one], parts[other])
    overlaps = paired_iou(_intersect(boxes[one], both), _intersect(boxes[other], both))
    is_match = overlaps > MERGE_IOU
    one, other, overlaps = one[is_match], other[is_match], overlaps[is_match]

    scores, counts = found.scores.copy(), found.counts.copy()
    is_mixed = is_cut[one] != is_cut[other]
    cut, whole = np.where(is_cut[one], (one, other), (other, one))[:, is_mixed]
    taken_by = np.full(len(boxes), len(boxes))
    np.minimum.at(taken_by, cut, whole)  # the best one, as they are in order
    is_taken = taken_by < len(boxes)
    np.maximum.at(scores, taken_by[is_taken], scores[is_taken])
    np.add.at(counts, taken_by[is_taken], 1)

    is_open = ~is_mixed & ~is_taken[one] & ~is_taken[other]
    by_overlap = np.argsort(-overlaps[is_open], kind="stable")
    neighbours = _neighbours(len(boxes), one[is_open][by_overlap], other[is_open][by_overlap])
    joined, views = boxes.copy(), views.copy()
    is_left = ~is_taken
    for row in np.flatnonzero(is_cut & is_left).tolist():
        if not is_left[row]:
            continue
        members, seen = [row], {tuple(parts[row])}
        for member in members:
            for near in neighbours(member):
                if is_left[near] and near != row and tuple(parts[near]) not in seen:
                    seen.add(tuple(parts[near]))
                    members.append(near)
        around = [near for member in members for near in neighbours(member)]
        is_left[around] = False
        is_left[row] = True
        joined[row] = [*boxes[members, :2].min(axis=0), *boxes[members, 2:].max(axis=0)]
        counts[row] += len(members) - 1
        views[row] = views[row] if len(members) == 1 else -1 - row
    order = np.argsort(-scores, kind="stable")
    order = order[is_left[order]]
    return replace(found, boxes=joined, scores=scores, counts=counts)[order], views[order]


def _neighbours(count: int, one: Ints, other: Ints) -> Callable[[int], list[int]]:
    """The rows that are paired with a row, in the pairs' order."""
    ends, others = np.concatenate([one, other]), np.concatenate([other, one])
    pair = np.tile(np.arange(len(one)), 2)
    order = np.lexsort((pair, ends))
    others = others[order]
    starts = np.searchsorted(ends[order], np.arange(count + 1))
    return lambda row: others[starts[row] : starts[row + 1]].tolist()


def _suppress(found: _Boxes, views: Ints) -> _Boxes:
    """Those that no better one of another view covers."""
    one, other = touching_pairs(found.boxes, found.labels)
    is_match = (views[one] != views[other]) & (paired_iou(found.boxes[one], found.boxes[other]) > MERGE_IOU)
    neighbours = _neighbours(len(views), one[is_match], other[is_match])
    is_left = np.ones(len(views), np.bool_)
    for row in np.unique(one[is_match]).tolist():
        if is_left[row]:
            is_left[[near for near in neighbours(row) if near > row]] = False
    return found[np.flatnonzero(is_left)]


def _fuse(found: _Boxes, views: Ints, edges: Floats) -> _Boxes:
    """Weighted boxes fusion: each box joins the fused box that it overlaps most, or begins a new one.

    A fused box is the mean of its boxes, weighed by score. Its score is their mean, lowered by the share of the views
    of its centre that did not find it. Unlike the paper's, it has one box of a view at most: a view's worse boxes of
    the same object would lower the mean.
    """
    one, other = touching_pairs(found.boxes, found.labels)
    neighbours = _neighbours(len(found.boxes), one, other)
    cluster_of = np.full(len(found.boxes), -1)
    fused, sums, heads, views_of = [], [], [], []
    for row, (box, score, count) in enumerate(zip(found.boxes, found.scores, found.counts, strict=True)):
        clusters = {int(cluster_of[other]) for other in neighbours(row) if other < row}
        near = sorted(cluster for cluster in clusters if views[row] not in views_of[cluster])
        best = -1
        if near:
            overlaps = paired_iou(np.stack([fused[i] for i in near]), np.broadcast_to(box, (len(near), 4)))
            best = near[int(overlaps.argmax())] if overlaps.max() > MERGE_IOU else -1
        if best < 0:
            best = len(fused)
            fused.append(box)
            sums.append(np.zeros(7))
            heads.append(row)
            views_of.append(set())
        cluster_of[row] = best
        views_of[best].add(views[row])
        # a score of 0 weighs a little, so that there is a mean
        weight = max(score, 1e-12)
        sums[best] += [*weight * box, weight, score, 0]
        sums[best][6] += count
        fused[best] = sums[best][:4] / sums[best][4]
    if not fused:
        return found
    boxes, total = np.stack(fused), np.stack(sums)
    sizes = np.bincount(cluster_of)
    num_views = _count_views(boxes, edges)
    scores = total[:, 5] / sizes * np.minimum(total[:, 6], num_views) / num_views
    return replace(found[np.array(heads)], boxes=boxes, scores=scores)


def _count_views(boxes: Floats, edges: Floats) -> Ints:
    """(N,) in how many parts (V, 4) the centre of each box lies, 1 or more."""
    counts = np.zeros(len(boxes), np.int64)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    for part in edges:
        counts += ((centers >= part[:2]) & (centers <= part[2:])).all(axis=1)
    return np.maximum(counts, 1)
