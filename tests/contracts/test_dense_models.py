"""What dense heads and detectors promise besides: rows in order, and weights that count."""

from dataclasses import replace

import pytest
import torch

from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.registry import HEADS

KINDS = ("dense",)
SHARED_HEADS = ("atss", "ddod", "fcos", "ga_retinanet", "retinanet")
"""Heads whose convolutions all levels share."""


def cells_of(detector, size) -> list[int]:
    """Cells of each level: the backbone's halve with rounding up, those that the neck adds likewise."""
    with torch.no_grad():
        pyramid = detector.eval().neck(detector.backbone(torch.zeros(1, 3, *size)))
    return [x.shape[-2] * x.shape[-1] for x in pyramid]


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_rows(detector, size, mode):
    cells = cells_of(detector, size)
    predictions = detector.train(mode)(torch.randn(2, 3, *size))
    assert isinstance(predictions, DensePredictions)
    assert predictions.deltas.dtype == torch.float32
    slots = detector.head.num_slots
    slots = [slots] * len(cells) if isinstance(slots, int) else slots
    counts = [s * c for s, c in zip(slots, cells, strict=True)]
    assert predictions.deltas.shape == (2, sum(counts), 4)
    assert list(predictions.grid.counts) == counts
    assert len(predictions.grid.anchors) == sum(counts)
    assert predictions.grid.levels.tolist() == sorted(predictions.grid.levels.tolist())
    assert predictions.grid.levels.bincount().tolist() == counts


def test_a_half_weighted_object_counts_half(detector, some_targets):
    if detector.criterion.__class__.__name__ == "GuidedDenseCriterion":
        pytest.skip("its shapes are drawn at random")
    predictions = detector.eval()(torch.randn(2, 3, 64, 96))
    whole = detector.criterion(predictions, some_targets)
    none = detector.criterion(predictions, replace(some_targets, weights=some_targets.weights * 0))
    assert none["box"] == 0
    assert none["classification"] < whole["classification"]


class TestHeads:
    @pytest.mark.parametrize("name", SHARED_HEADS)
    @pytest.mark.parametrize("spec", [PyramidSpec((8, 8), (4, 8)), PyramidSpec((12, 12, 12, 12), (8, 16, 32, 64))])
    def test_any_pyramid(self, name, spec):
        head = HEADS.create(name, spec, num_classes=5, channels=8, num_convs=2)
        pyramid = tuple(
            torch.randn(2, c, 97 // s + 1, 131 // s + 1, requires_grad=True)
            for c, s in zip(spec.channels, spec.strides, strict=True)
        )
        predictions = head(pyramid)
        rows = head.num_slots * sum((97 // s + 1) * (131 // s + 1) for s in spec.strides)
        assert predictions.classes.shape == (2, rows, 5)
        assert predictions.grid.sizes == tuple((97 // s + 1, 131 // s + 1) for s in spec.strides)
        (predictions.deltas.sum() + predictions.classes.sum()).backward()
        assert all(x.grad is not None and x.grad.isfinite().all() for x in pyramid)

    @pytest.mark.parametrize("name", SHARED_HEADS)
    def test_rows_run_finest_first_then_by_y_x(self, name):
        spec = PyramidSpec((4, 4), (8, 16))
        head = HEADS.create(name, spec, num_classes=1, channels=4, num_convs=0)
        grid = head((torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 1, 2))).grid
        slots = head.num_slots
        centers = ((grid.anchors[:, :2] + grid.anchors[:, 2:]) / 2 / grid.strides[:, None])[::slots]
        offset = 0.5 if name == "fcos" else 0
        fine, coarse = [[x, y] for y in range(2) for x in range(3)], [[0, 0], [1, 0]]
        torch.testing.assert_close(centers, torch.tensor([*fine, *coarse]).float() + offset)
        assert grid.strides.tolist() == [8] * 6 * slots + [16] * 2 * slots
        assert grid.levels.tolist() == [0] * 6 * slots + [1] * 2 * slots
        assert grid.counts == (6 * slots, 2 * slots)

    @pytest.mark.parametrize("name", SHARED_HEADS)
    def test_a_row_belongs_to_its_cell(self, name):
        spec = PyramidSpec((4, 4), (8, 16))
        head = HEADS.create(name, spec, num_classes=2, channels=4, num_convs=0).eval()
        with torch.no_grad():
            head.classes.weight.zero_()
            head.classes.weight[0, 0, 1, 1] = 1.0  # class 0 of the first anchor reads channel 0 of its own cell
        pyramid = (torch.zeros(1, 4, 2, 3), torch.zeros(1, 4, 1, 2))
        pyramid[0][0, 0, 1, 2] = 5.0
        if name == "ga_retinanet":
            head.class_adaption.weight.data.zero_()
            head.class_adaption.offset.weight.data.zero_()
            head.class_adaption.weight.data[0, 0, 1, 1] = 1.0
        rows = head(pyramid).classes[0]
        base = rows[-1, 0]
        changed = (rows - base).abs() > 1
        assert changed.nonzero().tolist() == [[5 * head.num_slots, 0]]

    @pytest.mark.parametrize("name", SHARED_HEADS)
    def test_training_starts_from_few_objects(self, name):
        head = HEADS.create(name, PyramidSpec((8,), (8,)), num_classes=2, channels=8, prior=0.02)
        found = head((torch.zeros(1, 8, 3, 3),)).classes.sigmoid()
        torch.testing.assert_close(found, torch.full_like(found, 0.02))

    @pytest.mark.parametrize("name", SHARED_HEADS)
    def test_complaint(self, name):
        with pytest.raises(ValueError, match=r"have \(4, 8\) channels; put a neck"):
            HEADS.create(name, PyramidSpec((4, 8), (8, 16)), num_classes=2)
