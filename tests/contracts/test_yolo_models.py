"""What the YOLO heads and detectors promise besides: rows in order, several of them an object."""

import pytest
import torch

from pyrafuse.assigners.neighbours import NeighbourAssigner
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.heads.registry import HEADS

KINDS = ("yolo",)


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_rows(detector, size, mode):
    predictions = detector.train(mode)(torch.randn(2, 3, *size))
    assert isinstance(predictions, GuidedPredictions)
    assert predictions.deltas.dtype == torch.float32
    grid, slots = predictions.grid, detector.head.num_slots
    areas = [-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32)]
    assert predictions.deltas.shape == (2, slots * sum(areas), 4)
    assert grid.levels.bincount().tolist() == [slots * area for area in areas]
    assert grid.starts[:, 0].tolist() == [slots * (areas[1] + areas[2]), slots * areas[2], 0]
    assert grid.sizes.tolist() == [[-(-size[1] // s), -(-size[0] // s)] for s in (8, 16, 32)]


def test_neighbours_are_named_by_their_options(build):
    assert isinstance(build("yolo-neighbours").criterion.assigner, NeighbourAssigner)


class TestHeads:
    @pytest.mark.parametrize("name", ["yolov3"])
    @pytest.mark.parametrize("spec", [PyramidSpec((8, 16), (4, 8)), PyramidSpec((8, 12, 16, 20), (8, 16, 32, 64))])
    def test_any_pyramid(self, name, spec):
        head = HEADS.create(name, spec, num_classes=5)
        pyramid = tuple(
            torch.randn(2, c, 97 // s + 1, 131 // s + 1, requires_grad=True)
            for c, s in zip(spec.channels, spec.strides, strict=True)
        )
        predictions = head(pyramid)
        rows = head.num_slots * sum((97 // s + 1) * (131 // s + 1) for s in spec.strides)
        assert predictions.classes.shape == (2, rows, 5)
        (predictions.deltas.sum() + predictions.classes.sum() + predictions.guides.sum()).backward()
        assert all(x.grad is not None and x.grad.isfinite().all() for x in pyramid)

    def test_rows_run_coarsest_first_then_by_slot_y_x(self):
        spec = PyramidSpec((1, 1), (8, 16))
        head = HEADS.create("yolov3", spec, num_classes=1, anchors=(((8, 4),), ((20, 30),)), adaption=False)
        grid = head((torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 2))).grid
        coarse, fine = [[0, 0], [1, 0]], [[x, y] for y in range(2) for x in range(4)]
        assert grid.cells.tolist() == [*coarse, *coarse, *fine, *fine]
        assert grid.shapes.tolist() == [[20, 30]] * 2 + [[64, 64]] * 2 + [[8, 4]] * 8 + [[32, 32]] * 8
        assert grid.strides.tolist() == [16] * 4 + [8] * 16
        assert grid.levels.tolist() == [1] * 4 + [0] * 16
        assert grid.starts.tolist() == [[4, 12], [0, 2]]
        assert grid.sizes.tolist() == [[4, 2], [2, 1]]
        assert grid.extent.tolist() == [32, 16]

    def test_training_starts_from_few_objects(self):
        head = HEADS.create(
            "yolov3", PyramidSpec((4,), (8,)), num_classes=2, anchors=(((8, 8),),), adaption=False, prior=0.02
        )
        found = head((torch.zeros(1, 4, 3, 3),)).objectness.sigmoid()
        torch.testing.assert_close(found, torch.full_like(found, 0.02))

    def test_complaints(self):
        spec = PyramidSpec((4, 4), (8, 16))
        with pytest.raises(ValueError, match="anchors must be one row a level, 2 rows of one length"):
            HEADS.create("yolov3", spec, num_classes=2, anchors=(((8, 8),),))
        with pytest.raises(ValueError, match="switch it off, or guided anchoring on"):
            HEADS.create("yolov3", spec, num_classes=2, guided=False)
