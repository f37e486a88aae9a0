"""Vectorised assignment and loss, against loops over images, objects and cells written from the paper's words."""

import math
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pyrafuse.assigners import max_iou
from pyrafuse.assigners.guided_anchor import GuidedAnchorAssigner
from pyrafuse.assigners.neighbours import NeighbourAssigner
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.criteria.yolov3 import YOLOv3Criterion
from pyrafuse.heads.yolov3 import ANCHORS, YOLOv3Head

WIDTH, HEIGHT, STRIDES, CLASSES = 96, 64, (8, 16, 32), 4
QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
TERMS = ("anchor", "iou", "l1", "objectness", "classification")


@st.composite
def boxes(draw, labels: int = CLASSES):
    """cx, cy, w, h in pixels, label, weight, crowd: on a grid, so that objects share cells and lie on borders."""
    cx = draw(st.sampled_from([0, 1, 12, 13, 15.5, 16, 40, 41, 70, 95, 96]) | st.floats(0, WIDTH))
    cy = draw(st.sampled_from([0, 3, 12, 13, 16, 31.9, 40, 63, 64]) | st.floats(0, HEIGHT))
    w = draw(st.sampled_from([8, 9, 10, 30, 33, 45, 90]) | st.floats(2, 250))
    h = draw(st.sampled_from([10, 12, 13, 30, 61, 60]) | st.floats(2, 250))
    label = draw(st.integers(0, labels - 1))
    weight = draw(st.sampled_from([1.0, 1.0, 0.25, 0.7]))
    return (cx, cy, w, h, label, weight, draw(st.integers(0, 4)) == 0)


images = st.lists(boxes(), max_size=7)
batches = st.lists(images, min_size=1, max_size=3)


def targets_of(batch) -> Targets:
    rows = torch.zeros(len(batch), max(map(len, batch)) + 1, 7, dtype=torch.float64)
    present = torch.zeros(rows.shape[:2], dtype=torch.bool)
    for i, image in enumerate(batch):
        for j, row in enumerate(image):
            rows[i, j] = torch.tensor(row, dtype=torch.float64)
            present[i, j] = True
    crowd = present & rows[..., 6].bool()
    return Targets(
        boxes=torch.cat((rows[..., :2] - rows[..., 2:4] / 2, rows[..., :2] + rows[..., 2:4] / 2), dim=-1),
        labels=rows[..., 4].long(),
        weights=rows[..., 5],
        valid=present & ~crowd,
        crowd=crowd,
    )


def predictions_of(batch_size: int, seed: int, *, guided: bool = True, reach: float = 0.0) -> GuidedPredictions:
    """Random float64 predictions on three levels; some cells foresee objects well."""
    head = YOLOv3Head(PyramidSpec((4, 4, 4), STRIDES), num_classes=CLASSES, guided=guided, adaption=False, reach=reach)
    with torch.no_grad():
        grid = head([torch.zeros(1, 4, HEIGHT // s, WIDTH // s) for s in STRIDES]).grid
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        values = torch.randn(batch_size, len(grid.levels), *shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    guides = random(2) if guided else torch.zeros(batch_size, len(grid.levels), 2, dtype=torch.float64)
    return GuidedPredictions(random(4), random(), random(CLASSES), guides, grid)


def row_of(grid, level: int, slot: int, x: int, y: int) -> int:
    """Coarsest level first, then slot, y, x."""
    num_slots = grid.starts.shape[1]
    before = sum((HEIGHT // s) * (WIDTH // s) for s in STRIDES[level + 1 :]) * num_slots
    height, width = HEIGHT // STRIDES[level], WIDTH // STRIDES[level]
    return before + (slot * height + y) * width + x


def overlap_of_shapes(a, b) -> float:
    shared = min(a[0], b[0]) * min(a[1], b[1])
    return shared / (a[0] * a[1] + b[0] * b[1] - shared)


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of two boxes, differentiable."""
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared + 1e-16)


def shape_at(predictions: GuidedPredictions, image: int, row: int) -> torch.Tensor:
    return predictions.guides[image, row].exp() * predictions.grid.shapes[row]


def box_at(predictions: GuidedPredictions, image: int, row: int) -> torch.Tensor:
    grid, reach = predictions.grid, predictions.grid.reach
    delta = predictions.deltas[image, row]
    center = ((delta[:2].sigmoid() - 0.5) * (1 + 2 * reach) + 0.5 + grid.cells[row]) * grid.strides[row]
    size = delta[2:].exp() * shape_at(predictions, image, row)
    return torch.cat((center - size / 2, center + size / 2))


def naive_claims(predictions: GuidedPredictions, targets: Targets, image: int, *, guided: bool = True):
    """(object, row that finds it, rows whose shape learns it) for each object in turn."""
    anchors = [(shape, level, slot) for level, row in enumerate(ANCHORS) for slot, shape in enumerate(row)]
    for j in range(targets.labels.shape[1]):
        if not targets.valid[image, j]:
            continue
        x1, y1, x2, y2 = targets.boxes[image, j].tolist()
        size = (x2 - x1, y2 - y1)
        best, level, slot = max(
            ((overlap_of_shapes(size, shape), level, slot) for shape, level, slot in anchors),
            key=lambda found: found[0],
        )
        stride = STRIDES[level]
        x = min(max(int((x1 + x2) / 2 / stride), 0), WIDTH // stride - 1)
        y = min(max(int((y1 + y2) / 2 / stride), 0), HEIGHT // stride - 1)
        anchor = row_of(predictions.grid, level, slot, x, y)
        if not guided:
            yield j, anchor, (anchor,)
            continue
        free = row_of(predictions.grid, level, 3, x, y)
        guess = shape_at(predictions, image, free).tolist()
        yield j, free if overlap_of_shapes(guess, size) > best else anchor, (anchor, free)


def naive_losses(predictions, targets, *, smoothing: bool, guided: bool = True) -> dict[str, torch.Tensor]:
    """Every term by level, by loops."""
    batch, grid = len(targets.labels), predictions.grid
    losses = {term: torch.zeros(3, dtype=torch.float64) for term in TERMS}
    for image in range(batch):
        holders, shapes, classes = {}, {}, {}
        for j, row, shape_rows in naive_claims(predictions, targets, image, guided=guided):
            holders[row] = j
            classes.setdefault(row, set()).add(int(targets.labels[image, j]))
            for shape_row in shape_rows:
                shapes[shape_row] = j
        for row, j in shapes.items():
            x1, y1, x2, y2 = targets.boxes[image, j]
            size = torch.stack((x2 - x1, y2 - y1))
            guess = shape_at(predictions, image, row)
            shared = torch.minimum(size, guess).prod()
            iou = shared / (size.prod() + guess.prod() - shared)
            losses["anchor"][grid.levels[row]] += 1 - iou**2
        for row in range(len(grid.levels)):
            level, box, logit = grid.levels[row], box_at(predictions, image, row), predictions.objectness[image, row]
            if row not in holders:
                if not naive_is_excused(box.detach(), targets, image):
                    losses["objectness"][level] += F.softplus(logit)
                continue
            j = holders[row]
            wanted = targets.boxes[image, j]
            # the shape's own object, where another one took the anchor-free guess after this one was placed
            losses["objectness"][level] += targets.weights[image, j] * F.softplus(-logit)
            wanted = targets.boxes[image, shapes[row]]
            size, center = wanted[2:] - wanted[:2], (wanted[2:] + wanted[:2]) / 2
            scale = 2 - size.prod() / (WIDTH * HEIGHT)
            losses["iou"][level] += scale * (1 - overlap(box, wanted) ** 2)
            inside = (center / grid.strides[row] - grid.cells[row]).clamp(0, 1)
            delta = predictions.deltas[image, row]
            places = F.binary_cross_entropy_with_logits(delta[:2], inside, reduction="sum")
            sizes = (delta[2:] - (size / shape_at(predictions, image, row)).log()).abs().sum()
            losses["l1"][level] += scale * (places + sizes)
            labels = {int(targets.labels[image, j])} if smoothing else classes[row]
            for k in range(CLASSES):
                high, low = (1 - 1 / CLASSES, 1 / CLASSES) if smoothing else (1.0, 0.0)
                target = torch.tensor(high if k in labels else low, dtype=torch.float64)
                losses["classification"][level] += F.binary_cross_entropy_with_logits(
                    predictions.classes[image, row, k], target
                )
    return {term: values / batch for term, values in losses.items()}


def naive_is_excused(box: torch.Tensor, targets: Targets, image: int) -> bool:
    for other, is_object, is_crowd in zip(
        targets.boxes[image], targets.valid[image], targets.crowd[image], strict=True
    ):
        if is_object and overlap(box, other) > 0.7:
            return True
        shared = (torch.minimum(box[2:], other[2:]) - torch.maximum(box[:2], other[:2])).clamp(min=0).prod()
        if is_crowd and shared > 0.7 * (box[2:] - box[:2]).prod():
            return True
    return False


@pytest.mark.parametrize("guided", [True, False])
@QUICK
@given(batch=batches, seed=st.integers(0, 2**31))
def test_guided_anchor_assigner(guided, batch, seed):
    targets = targets_of(batch)
    predictions = predictions_of(len(batch), seed, guided=guided)
    found = GuidedAnchorAssigner(guided=guided)(predictions, targets)
    for image in range(len(batch)):
        claims = list(naive_claims(predictions, targets, image, guided=guided))
        assert claimed(found.positives, image) == {(j, row) for j, row, _ in claims}
        assert claimed(found.shapes, image) == {(j, row) for j, _, rows in claims for row in rows}


def claimed(claims, image: int) -> set[tuple[int, int]]:
    valid = claims.valid[image]
    return set(zip(claims.objects[valid].tolist(), claims.rows[image, valid].tolist(), strict=True))


@pytest.mark.parametrize(("smoothing", "guided"), [(False, True), (True, True), (False, False)])
@settings(QUICK, max_examples=8)
@given(batch=batches, seed=st.integers(0, 2**31))
def test_criterion(smoothing, guided, batch, seed):
    targets = targets_of(batch)
    predictions = predictions_of(len(batch), seed, guided=guided)
    criterion = YOLOv3Criterion(assigner=GuidedAnchorAssigner(guided=guided), label_smoothing=smoothing)
    with patch.object(max_iou, "MAX_CACHED_ELEMENTS", 1):  # one object at a time
        report = criterion.by_level(predictions, targets)
    expected = naive_losses(predictions, targets, smoothing=smoothing, guided=guided)
    for term in TERMS:
        torch.testing.assert_close(report.losses[term], expected[term], rtol=1e-9, atol=1e-9)
    leaves = [
        v
        for v in (predictions.deltas, predictions.objectness, predictions.classes, predictions.guides)
        if guided or v.requires_grad
    ]
    got = torch.autograd.grad(sum(v.sum() for v in report.losses.values()), leaves, allow_unused=True)
    wanted = torch.autograd.grad(sum(v.sum() for v in expected.values()), leaves, allow_unused=True)
    for mine, other, leaf in zip(got, wanted, leaves, strict=True):
        zero = torch.zeros_like(leaf)
        torch.testing.assert_close(
            zero if mine is None else mine, zero if other is None else other, rtol=1e-8, atol=1e-9
        )


@pytest.mark.parametrize("radius", [0, 1])
@settings(QUICK, max_examples=40)
@given(batch=batches, seed=st.integers(0, 2**31), top_k=st.integers(1, 12), shape_iou=st.sampled_from([0.0, 0.3, 0.9]))
def test_neighbour_assigner(radius, batch, seed, top_k, shape_iou):
    targets = targets_of(batch)
    predictions = predictions_of(len(batch), seed, reach=float(radius))
    assigner = NeighbourAssigner(radius=radius, top_k=top_k, shape_iou=shape_iou)
    found = assigner(predictions, targets)
    for image in range(len(batch)):
        bids: dict[int, list[tuple[float, int]]] = {}
        for j in range(targets.labels.shape[1]):
            if targets.valid[image, j]:
                for quality, row in naive_neighbours(assigner, predictions, targets, image, j):
                    bids.setdefault(row, []).append((quality, j))
        for offers in bids.values():
            assume(is_clear_cut(sorted(offers, reverse=True), 1))
        assert claimed(found.positives, image) == {(max(offers)[1], row) for row, offers in bids.items()}
        assert claimed(found.shapes, image) == claimed(found.positives, image)


@torch.no_grad()
def naive_neighbours(assigner, predictions, targets, image: int, j: int) -> list[tuple[float, int]]:
    """The best (quality, row) among the cells around the object's centre, on the levels made for its shape."""
    wanted = targets.boxes[image, j]
    cx, cy = ((wanted[:2] + wanted[2:]) / 2).tolist()
    size = (wanted[2:] - wanted[:2]).tolist()
    shapes = [[*anchors, (4 * stride, 4 * stride)] for anchors, stride in zip(ANCHORS, STRIDES, strict=True)]
    least = min(assigner.shape_iou, max(overlap_of_shapes(size, shape) for row in shapes for shape in row))
    offers, overlaps = [], []
    for level, stride in enumerate(STRIDES):
        for y in range(HEIGHT // stride):
            for x in range(WIDTH // stride):
                if max(abs(x - math.floor(cx / stride)), abs(y - math.floor(cy / stride))) > assigner.radius:
                    continue
                for slot, shape in enumerate(shapes[level]):
                    if overlap_of_shapes(size, shape) < least:
                        continue
                    row = row_of(predictions.grid, level, slot, x, y)
                    iou = float(overlap(box_at(predictions, image, row), wanted))
                    label = targets.labels[image, j]
                    found = predictions.classes[image, row, label].sigmoid()
                    score = float(found * predictions.objectness[image, row].sigmoid())
                    offers.append((score**assigner.score_power * iou**assigner.iou_power, row))
                    overlaps.append(iou)
    count = max(1, round(sum(sorted(overlaps, reverse=True)[: assigner.top_k])))
    offers.sort(reverse=True)
    assume(is_clear_cut(offers, count))
    return offers[:count]


def is_clear_cut(offers: list[tuple[float, int]], count: int) -> bool:
    """Whether the best ``count`` are better by more than rounding: no order is promised among equals."""
    return len(offers) <= count or offers[count - 1][0] > offers[count][0] + 1e-9
