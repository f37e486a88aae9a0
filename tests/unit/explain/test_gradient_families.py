"""Gradients of every family: by autograd through the whole detector, and positives as its assigner has them."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from pyrafuse.base.conflicts import NETWORK
from pyrafuse.core.targets import Targets
from pyrafuse.explain.gradients import compute_source_gradients
from pyrafuse.importers.loading import load
from pyrafuse.necks.registry import NeckChain

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "checkpoints" / "2026-11.zip"
DENSE = (
    "atss", "ddod", "fcos", "retinanet", "ga_retinanet", "libra_retinanet", "ssd300", "ssdlite320", "m2det",
    "efficientdet_d0", "tf_efficientdet_d0", "pafpn_bfp", "graph",
)  # fmt: skip
TWO_STAGE = ("faster_rcnn", "libra_rcnn", "cascade_rcnn")
SAMPLING = (*TWO_STAGE, "libra_retinanet")
YOLO = ("yolov3", "yolov3_plain", "yolov3_small")
TARGETS = Targets.pad([torch.tensor([[10.0, 10, 50, 50], [40, 20, 90, 60], [2, 2, 14, 12]])], [torch.tensor([0, 1, 0])])


def read(name, folder):
    with zipfile.ZipFile(ARCHIVE) as files:
        (folder / "tiny.ckpt").write_bytes(files.read(f"{name}.ckpt"))
    return load(folder / "tiny.ckpt").eval()


def parts_of(name, detector):
    """What the assigner sees, and the criterion."""
    return detector.criterion.proposals if name in TWO_STAGE else detector.criterion


def positive_rows(name, detector, predictions):
    """By the assigner itself, without the criterion; of samples drawn at random, those that could be drawn."""
    criterion = parts_of(name, detector)
    criterion = getattr(criterion, "dense", criterion)
    assigned = criterion.assigner(predictions, TARGETS)
    if name in YOLO and hasattr(assigned, "positives"):
        claims = assigned.positives
        rows = torch.zeros(predictions.objectness.shape, dtype=torch.bool)
        for column in range(claims.rows.shape[1]):
            if claims.valid[0, column]:
                rows[0, claims.rows[0, column]] = True
        return rows
    return assigned.is_positive


def cells_by_hand(grid, rows):
    """How many cells of each level hold a positive row, by a loop over the rows."""
    cells = [set() for _ in grid.sizes]
    for row in rows[0].nonzero().flatten().tolist():
        level = int(grid.levels[row])
        if hasattr(grid, "cells"):
            cells[level].add(tuple(grid.cells[row].tolist()))
            continue
        height, width = grid.sizes[level]
        slots = grid.counts[level] // (height * width)
        cells[level].add((row - sum(grid.counts[:level])) // slots)
    return [len(found) for found in cells]


@pytest.mark.parametrize("name", [*DENSE, *TWO_STAGE, *YOLO])
def test_of_a_family(name, tmp_path):
    detector = read(name, tmp_path)
    images = torch.randn(1, 3, *detector.card.preprocessing.size, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    gradients = compute_source_gradients(detector, images, TARGETS)

    # of a chain, the last neck brings levels together
    *before, last = detector.neck.necks if isinstance(detector.neck, NeckChain) else [detector.neck]
    maps = nn.Sequential(detector.backbone, *before)(images)
    sources = tuple(x.detach().requires_grad_() for x in maps)
    predictions = detector.head(last(sources))
    torch.manual_seed(1)
    losses = parts_of(name, detector).by_level(predictions, TARGETS).losses
    assert gradients.source_strides == (before[-1] if before else detector.backbone).features.strides
    for level in range(len(gradients.output_strides)):
        for x in sources:
            x.grad = None
        sum(values[level] for values in losses.values()).backward(retain_graph=True)
        for x, received in zip(sources, gradients.received[NETWORK], strict=True):
            torch.testing.assert_close(received[level], torch.zeros_like(x) if x.grad is None else x.grad)
    assert all(received.abs().max() > 0 for received in gradients.received[NETWORK])

    rows = positive_rows(name, detector, predictions)
    cells = [int(c.sum()) for c in predictions.grid.cells_of(rows)]
    assert cells == cells_by_hand(predictions.grid, rows)
    assert sum(cells) > 0
    if gradients.source_strides == gradients.output_strides:  # nothing is spread to another grid
        assert [int(p[level].sum()) for level, p in enumerate(gradients.is_positive)] == cells
    told = parts_of(name, detector).by_level(predictions, TARGETS).is_positive
    assert not (told & ~rows).any()
    assert name in SAMPLING or torch.equal(told, rows)
