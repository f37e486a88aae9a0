"""Assigners of dense heads: worked by hand, and against plain loops."""

import math
from dataclasses import replace

import pytest
import torch

from pyrafuse.assigners.atss import ATSSAssigner
from pyrafuse.assigners.locations import LocationAssigner
from pyrafuse.assigners.max_iou import ApproxMaxIoUAssigner, MaxIoUAssigner
from pyrafuse.assigners.points import NO_BOUND, RANGES, PointAssigner, ranges_for
from pyrafuse.core.assignment import BACKGROUND, IGNORED
from pyrafuse.core.predictions import DenseGrid, DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.ops.anchors import lay_anchors
from pyrafuse.ops.boxes import pairwise_iou

ANCHORS = torch.tensor(
    [[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4.5], [20, 0, 30, 10], [20, 0, 30, 10], [50, 50, 60, 60]]
)


def predictions_on(sizes=((8, 10), (4, 5), (2, 3)), *, stride=8, scale=4.0, offset=0.0, batch=2) -> DensePredictions:
    strides = [stride * 2**level for level in range(len(sizes))]
    boxes = [
        lay_anchors(torch.tensor([[scale * s, scale * s]]), size, s, offset=offset)
        for size, s in zip(sizes, strides, strict=True)
    ]
    counts = tuple(len(b) for b in boxes)
    levels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    return DensePredictions(
        classes=torch.randn(batch, sum(counts), 3, generator=generator),
        deltas=torch.randn(batch, sum(counts), 4, generator=generator) * 0.3,
        quality=None,
        grid=DenseGrid(
            anchors=torch.cat(boxes),
            strides=torch.tensor(strides)[levels].float(),
            levels=levels,
            counts=counts,
            sizes=sizes,
        ),
    )


def random_targets(num: int = 6) -> Targets:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(2 * num, 2, generator=generator) * 50
    boxes = torch.cat((corners, corners + 4 + torch.rand(2 * num, 2, generator=generator) * 40), dim=1)
    labels = torch.randint(0, 3, (2 * num,), generator=generator)
    return Targets.pad([boxes[:num], boxes[num : num + 2]], [labels[:num], labels[num : num + 2]])


class TestMaxIoU:
    targets = Targets.pad([torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 3]])], [torch.tensor([0, 1])])

    def test_by_hand(self):
        found = MaxIoUAssigner().assign(ANCHORS, self.targets)
        # the second object overlaps its best rows by 0.3 only; both of them are its best
        assert found.objects.tolist() == [[0, 0, IGNORED, 1, 1, BACKGROUND]]
        assert found.overlaps[0].tolist() == pytest.approx([1, 0.6, 0.45, 0.3, 0.3, 0])

    def test_first_of_equals(self):
        found = MaxIoUAssigner(match_ties=False).assign(ANCHORS, self.targets)
        assert found.objects.tolist() == [[0, 0, IGNORED, 1, BACKGROUND, BACKGROUND]]

    def test_best_rows_only_where_they_are_good(self):
        for assigner in (MaxIoUAssigner(least_best_iou=0.4), MaxIoUAssigner(match_best=False)):
            assert assigner.assign(ANCHORS, self.targets).objects[0, 3] == BACKGROUND

    def test_a_range_below(self):
        found = MaxIoUAssigner(negative_iou=(0.1, 0.4), least_best_iou=0.4).assign(ANCHORS, self.targets)
        assert found.objects[0, 3:].tolist() == [BACKGROUND, BACKGROUND, IGNORED]

    def test_the_last_object_has_a_row_that_is_best_for_several(self):
        both = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.5]])
        found = MaxIoUAssigner().assign(ANCHORS, Targets.pad([both], [torch.tensor([0, 0])]))
        assert found.objects[0, 0] == 1

    @pytest.mark.parametrize("most", [1, 12, 2**17])
    def test_the_first_of_equals_has_a_row_and_the_last_has_the_best(self, most, monkeypatch):
        monkeypatch.setattr("pyrafuse.assigners.max_iou.MAX_CACHED_ELEMENTS", most)
        boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 10]])
        found = MaxIoUAssigner().assign(ANCHORS, Targets.pad([boxes], [torch.zeros(5)]))
        assert found.objects.tolist() == [[4, 0, 0, 3, 3, BACKGROUND]]
        assert found.overlaps[0].tolist() == pytest.approx([1, 0.75, 0.5625, 1, 1, 0])
        found = MaxIoUAssigner(match_best=False).assign(ANCHORS, Targets.pad([boxes], [torch.zeros(5)]))
        assert found.objects[0, 0] == 1

    def test_crowds(self):
        boxes = torch.cat((self.targets.boxes[0], torch.tensor([[45.0, 45, 90, 90], [0, 0, 9, 9]])))
        targets = Targets.pad([boxes], [torch.zeros(4)], crowd=[torch.tensor([False, False, True, True])])
        assert MaxIoUAssigner().assign(ANCHORS, targets).objects[0, 5] == BACKGROUND
        found = MaxIoUAssigner(crowd_share=0.5).assign(ANCHORS, targets)
        assert found.objects.tolist() == [[IGNORED, IGNORED, IGNORED, 1, 1, IGNORED]]
        assert found.overlaps[0, 5] == -1
        small = MaxIoUAssigner(crowd_share=0.5, share_of_crowd=True).assign(ANCHORS, targets)
        assert small.objects[0, 5] == BACKGROUND
        assert small.objects[0, 0] == IGNORED

    def test_an_object_that_nothing_overlaps_takes_no_row(self):
        targets = Targets.pad([torch.tensor([[500.0, 500, 510, 510], [3, 3, 3, 3]])], [torch.zeros(2)])
        assert (MaxIoUAssigner().assign(ANCHORS, targets).objects == BACKGROUND).all()

    def test_as_loops(self):
        predictions, targets = predictions_on(), random_targets()
        found = MaxIoUAssigner()(predictions, targets)
        for image in range(2):
            boxes = targets.boxes[image][targets.valid[image]]
            overlap = pairwise_iou(predictions.anchors, boxes)
            expected = []
            for row in overlap:
                best = row.argmax().item()
                value = row[best].item()
                expected.append(best if value >= 0.5 else BACKGROUND if value < 0.4 else IGNORED)
            for k in range(len(boxes)):
                for row in range(len(expected)):
                    if overlap[row, k] == overlap[:, k].max():
                        expected[row] = k
            assert found.objects[image].tolist() == expected

    def test_anchors_of_each_image(self):
        predictions, targets = predictions_on(), random_targets()
        shared = MaxIoUAssigner().assign(predictions.anchors, targets)
        own = MaxIoUAssigner().assign(predictions.anchors.expand(2, -1, -1), targets)
        assert torch.equal(shared.objects, own.objects)


def test_approximate_max_iou_takes_the_best_of_its_shapes():
    square = torch.tensor([[0.0, 0, 8, 8]])
    wide = Targets.pad([torch.tensor([[-4.0, 0, 12, 8]])], [torch.zeros(1)])
    assigner = ApproxMaxIoUAssigner(scales=(1.0, 2**0.5), ratios=(1.0, 0.5))
    assert assigner.assign(square, wide).overlaps.item() == pytest.approx(1)
    assert assigner.assign(square, wide).objects.item() == 0


class TestATSS:
    @pytest.mark.parametrize("alpha", [None, 0.5])
    def test_as_loops(self, alpha):
        predictions, targets = predictions_on(scale=2), random_targets()
        assigner = ATSSAssigner(top_k=5, alpha=alpha)
        found = assigner(predictions, targets)
        decoded = assigner.coder.decode(predictions.anchors, predictions.deltas)
        centers = (predictions.anchors[:, :2] + predictions.anchors[:, 2:]) / 2
        for image in range(2):
            best = torch.zeros(len(centers))
            expected = torch.full((len(centers),), BACKGROUND)
            for k in range(int(targets.valid[image].sum())):
                box = targets.boxes[image, k]
                away = (centers - (box[:2] + box[2:]) / 2).norm(dim=1)
                rows = []
                for level in range(3):
                    of_level = (predictions.grid.levels == level).nonzero().squeeze(1)
                    rows += of_level[away[of_level].argsort()[:5]].tolist()
                boxes = predictions.anchors[rows] if alpha is None else decoded[image, rows]
                overlap = pairwise_iou(boxes, box[None])[:, 0]
                if alpha is not None:
                    score = predictions.classes[image, rows, targets.labels[image, k]].sigmoid()
                    overlap = overlap**alpha * score ** (1 - alpha)
                threshold = overlap.mean() + overlap.std()
                for row, value in zip(rows, overlap, strict=True):
                    x, y = centers[row]
                    is_inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
                    if value >= threshold and is_inside and value > best[row]:
                        best[row], expected[row] = value, k
            assert found.objects[image].tolist() == expected.tolist()
            torch.testing.assert_close(found.overlaps[image], best)
        assert found.is_positive.any()

    def test_fewer_rows_than_asked_for(self):
        found = ATSSAssigner(top_k=9)(predictions_on(((1, 1), (1, 1)), scale=8), random_targets())
        assert found.objects.shape == (2, 2)


class TestPoints:
    def test_as_loops(self):
        predictions, targets = predictions_on(scale=1, offset=0.5), random_targets()
        ranges = ((-1, 16), (16, 32), (32, math.inf))
        for radius in (None, 1.5):
            found = PointAssigner(ranges=ranges, radius=radius)(predictions, targets)
            centers = (predictions.anchors[:, :2] + predictions.anchors[:, 2:]) / 2
            for image in range(2):
                expected = []
                for (x, y), level in zip(centers.tolist(), predictions.grid.levels.tolist(), strict=True):
                    best = (math.inf, BACKGROUND)
                    for k in range(int(targets.valid[image].sum())):
                        x1, y1, x2, y2 = targets.boxes[image, k].tolist()
                        sides = (x - x1, y - y1, x2 - x, y2 - y)
                        is_inside = min(sides) > 0
                        if radius is not None:
                            reach = radius * 8 * 2**level
                            away = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
                            is_inside = is_inside and away < reach
                        if is_inside and ranges[level][0] <= max(sides) <= ranges[level][1]:
                            best = min(best, ((x2 - x1) * (y2 - y1), k))
                    expected.append(best[1])
                assert found.objects[image].tolist() == expected
            assert found.is_positive.any()

    def test_complaint(self):
        assert ranges_for((8, 16, 32, 64, 128)) == RANGES
        assert ranges_for((4, 8)) == ((-1, 32), (32, NO_BOUND))
        assert ranges_for((32,)) == ((-1, NO_BOUND),)
        with pytest.raises(ValueError, match="3 levels need as many ranges"):
            PointAssigner()(predictions_on(), random_targets())


class TestLocations:
    def test_by_hand(self):
        predictions = predictions_on(((8, 8), (4, 4), (2, 2)), batch=1)
        # 32 px squares on the finest level: this object is one of them, from cell 1 to cell 5
        targets = Targets.pad([torch.tensor([[8.0, 8, 40, 40]])], [torch.zeros(1)])
        found = LocationAssigner()(predictions, targets)
        fine, middle, coarse = found.weights[0].split(predictions.grid.counts)
        wanted = found.wanted[0].split(predictions.grid.counts)[0].view(8, 8)
        assert wanted.nonzero().tolist() == [[3, 3]]
        fine = fine.view(8, 8)
        assert fine[3, 3] == 1
        assert (fine == 0).nonzero().tolist() == [[y, x] for y in (2, 3, 4) for x in (2, 3, 4) if (y, x) != (3, 3)]
        assert (middle.view(4, 4) == 0).nonzero().tolist() == [[y, x] for y in (1, 2) for x in (1, 2)]
        assert coarse.tolist() == pytest.approx([0.1] * 4)

    def test_a_later_object_overrules_an_earlier_one(self):
        predictions = predictions_on(((8, 8), (4, 4)), batch=1)
        boxes = torch.tensor([[8.0, 8, 40, 40], [16.0, 8, 48, 40]])
        found = LocationAssigner()(predictions, Targets.pad([boxes], [torch.zeros(2)]))
        cell = 3 * 8 + 3
        assert found.wanted[0, cell] == 1
        assert found.weights[0, cell] == 0
        assert found.weights[0, cell + 1] == 1

    def test_a_centre_nearer_to_a_cell_past_the_border_belongs_to_none(self):
        # its centre region reaches from 62.08 to 62.72 px, and the last cell stands at 56
        targets = Targets.pad([torch.tensor([[60.8, 8, 64, 40]])], [torch.zeros(1)])
        found = LocationAssigner()(predictions_on(((8, 8), (4, 4)), batch=1), targets)
        assert (found.wanted == 0).all()
        assert (found.weights == 0.1).all()


ASSIGNERS = [
    MaxIoUAssigner(crowd_share=0.5),
    MaxIoUAssigner(match_ties=False),
    ApproxMaxIoUAssigner(),
    ATSSAssigner(),
    ATSSAssigner(alpha=0.8),
    PointAssigner(ranges=((-1, 16), (16, 32), (32, 99))),
]


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("rows", [0, 2])
def test_no_objects_at_all(assigner, rows):
    found = assigner(predictions_on(), Targets.empty(2, rows))
    assert (found.objects == BACKGROUND).all()
    assert (found.overlaps == 0).all()


@pytest.mark.parametrize("rows", [0, 2])
def test_no_locations_at_all(rows):
    found = LocationAssigner()(predictions_on(), Targets.empty(2, rows))
    assert (found.wanted == 0).all()
    assert (found.weights == 0.1).all()


@pytest.mark.parametrize("assigner", ASSIGNERS, ids=lambda a: type(a).__name__)
def test_objects_chunk_by_chunk(assigner, monkeypatch):
    predictions, targets = predictions_on(), random_targets()
    whole = assigner(predictions, targets)
    locations = LocationAssigner()(predictions, targets)
    for module in ("max_iou", "atss", "points", "locations"):
        monkeypatch.setattr(
            f"pyrafuse.assigners.{module}.chunks", lambda _, n, **__: (slice(i, i + 2) for i in range(0, n, 2))
        )
    parts = assigner(predictions, targets)
    assert torch.equal(parts.objects, whole.objects)
    assert torch.equal(parts.overlaps, whole.overlaps)
    again = LocationAssigner()(predictions, targets)
    assert torch.equal(again.weights, locations.weights)
    assert torch.equal(again.wanted, locations.wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MaxIoUAssigner(positive_iou=0.3), "must not lie above positive_iou 0.3"),
        (lambda: ATSSAssigner(top_k=0), "got 0"),
        (lambda: ATSSAssigner(alpha=2), "and 2"),
        (lambda: LocationAssigner(center_ratio=0.6), "must not exceed"),
    ],
)
def test_complaints(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class TestPadding:
    """An image beside larger ones learns what it would learn by itself; nothing is learnt of what lies beyond it."""

    OWN, WHOLE = (64, 96), (160, 192)
    SIZES = {
        size: tuple((math.ceil(size[0] / s), math.ceil(size[1] / s)) for s in (8, 16, 32, 64)) for size in (OWN, WHOLE)
    }

    def predictions(self, size, rows=None):
        """On an input of ``size``; the same as those of the whole batch in the ``rows`` that it keeps."""
        found = predictions_on(self.SIZES[size], offset=0.5)
        whole = predictions_on(self.SIZES[self.WHOLE], offset=0.5)
        rows = slice(None) if rows is None else rows
        return replace(found, classes=whole.classes[:, rows], deltas=whole.deltas[:, rows])

    def targets(self, sizes):
        boxes = random_targets().boxes[0].clamp(max=64)
        padded = torch.tensor(sizes).float()
        objects = Targets.pad([boxes, boxes], [torch.arange(6) % 3] * 2)
        return replace(objects, sizes=padded - torch.tensor([9.0, 20]), padded_sizes=padded)

    @pytest.mark.parametrize(
        "assigner",
        [
            MaxIoUAssigner(),
            MaxIoUAssigner(match_ties=False),
            MaxIoUAssigner(border=0, positive_iou=0.3, negative_iou=0.2),
            MaxIoUAssigner(border=30.0),
            ApproxMaxIoUAssigner(),
            ATSSAssigner(),
            ATSSAssigner(top_k=30),
            ATSSAssigner(alpha=0.5),
        ],
    )
    def test_as_by_itself(self, assigner):
        in_padding = self.predictions(self.WHOLE).grid.beyond(torch.tensor([self.OWN, self.WHOLE]).float())
        assert not in_padding[1].any()
        inside = (~in_padding[0]).nonzero()[:, 0]
        beside = assigner(self.predictions(self.WHOLE), self.targets([self.OWN, self.WHOLE]))
        alone = assigner(self.predictions(self.OWN, inside), self.targets([self.OWN] * 2))
        assert (alone.objects[0] >= 0).any()
        assert beside.objects[0, inside].tolist() == alone.objects[0].tolist()
        assert beside.overlaps[0, inside].tolist() == pytest.approx(alone.overlaps[0].tolist())
        assert (beside.objects[0, in_padding[0]] == IGNORED).all()
        largest = assigner(self.predictions(self.WHOLE), replace(self.targets([self.WHOLE] * 2), padded_sizes=None))
        assert beside.objects[1].tolist() == largest.objects[1].tolist()

    def test_the_border_is_the_images_own(self):
        predictions = self.predictions(self.WHOLE)
        found = MaxIoUAssigner(border=0)(predictions, self.targets([self.OWN, self.WHOLE])).objects
        x1, y1, x2, y2 = predictions.anchors.unbind(-1)
        for image, (height, width) in enumerate(((64 - 9, 96 - 20), (160 - 9, 192 - 20))):
            assert (found[image] == IGNORED)[(x1 < 0) | (y1 < 0) | (x2 >= width) | (y2 >= height)].all()
            assert not (found[image] == IGNORED).all()

    def test_cells_that_begin_inside_count(self):
        grid = self.predictions(self.WHOLE).grid
        rows = (~grid.beyond(torch.tensor([[64.0, 96.0]]))[0]).split(grid.counts)
        assert [int(level.sum()) for level in rows] == [8 * 12, 4 * 6, 2 * 3, 1 * 2]
