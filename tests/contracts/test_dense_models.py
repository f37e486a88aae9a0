"""What every dense head and detector promises: rows in order, finite gradients, no objects, no waiting, export."""

import re
from dataclasses import fields, replace

import pytest
import torch

from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.heads.registry import HEADS
from pyrafuse.models.factory import create_model, list_models

TINY = {
    "backbone": "resnet18",
    "backbone_options": {"width": 8},
    "neck_options": {"fpn": {"out_channels": 16}},
    "head_options": {"channels": 16, "num_convs": 1},
}
CELLS = {**TINY, "neck_options": {"nas_fpn": {"out_channels": 16, "stack": 1}}}
TWO_MAPS = {"backbone": "resnet18", "backbone_options": {"width": 8, "strides": (8, 16)}}
SEPARABLE = {
    "backbone": "resnet18",
    "backbone_options": {"width": 8},
    "neck_options": {"bifpn": {"out_channels": 8, "repeats": 1}},
    "head_options": {"num_convs": 1},
}
OF_MODELS = {
    "retinanet_nas_fpn": CELLS,
    "ssd300": {**TWO_MAPS, "neck_options": {"ssd_extra": {"out_channels": (16, 16, 16, 16)}}},
    "ssd512": {**TWO_MAPS, "neck_options": {"ssd_extra": {"out_channels": (16, 16, 16, 16, 16)}}},
    "m2det": {**TWO_MAPS, "neck_options": {"mlfpn": {"num_levels": 2, "channels": 8}}},
    "efficientdet_d0": SEPARABLE,
    "tf_efficientdet_d0": SEPARABLE,
}
"""Where `TINY` does not fit."""
OTHER_KINDS = re.compile(r"yolo|rcnn|efficientdet_d[1-9]")
"""In the names of models that have contracts of their own, or are one of these with other numbers."""
VARIANTS = {
    **{name: (name, OF_MODELS.get(name, TINY)) for name in list_models() if not OTHER_KINDS.search(name)},
    "thresholds of their own": (
        "retinanet",
        {
            **TINY,
            "criterion_options": {
                "box_assigner": {"positive_iou": 0.4},
                "box_loss": "ciou",
                "assigner": {"crowd_share": 0.5},
            },
        },
    ),
    "level weights apart": (
        "atss",
        {**TINY, "criterion_options": {"level_weights": {"shared": False, "ends": (0.5, 1.0)}, "quality": "iou"}},
    ),
    "centre sampling": (
        "fcos",
        {
            **TINY,
            "head_options": {**TINY["head_options"], "distances": "scaled_relu", "centerness_on_boxes": True},
            "criterion_options": {"assigner": {"radius": 1.5}, "box_loss": "giou"},
        },
    ),
    "torchvision's RetinaNet": (
        "retinanet",
        {**TINY, "head_options": {**TINY["head_options"], "norm": "group_norm", "whole_pixels": True}},
    ),
    "torchvision's FCOS": (
        "fcos",
        {
            **TINY,
            "head_options": {
                **TINY["head_options"],
                "distances": "relu",
                "whole_steps": True,
                "redundant_bias": True,
                "centerness_on_boxes": True,
            },
            "postprocess_options": {"joint_quality": True},
        },
    ),
    "finest level": (
        "atss",
        {
            **TINY,
            "backbone_options": {"width": 8, "strides": (4, 8, 16, 32)},
            "neck_options": {"fpn": {"out_channels": 16, "num_levels": 4}},
        },
    ),
}
SHARED_HEADS = ("atss", "ddod", "fcos", "ga_retinanet", "retinanet")
"""Heads whose convolutions all levels share."""


def build(variant: str):
    torch.manual_seed(0)
    name, options = VARIANTS[variant]
    return create_model(name, num_classes=3, **options)


@pytest.fixture(scope="module", params=VARIANTS)
def detector(request):
    return build(request.param)


def cells_of(detector, size) -> list[int]:
    """Cells of each level: the backbone's halve with rounding up, those that the neck adds likewise."""
    with torch.no_grad():
        pyramid = detector.eval().neck(detector.backbone(torch.zeros(1, 3, *size)))
    return [x.shape[-2] * x.shape[-1] for x in pyramid]


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@torch.no_grad()
def test_candidates(detector, size):
    images = torch.randn(2, 3, *size)
    candidates = detector.eval().decode(images)
    slots = detector.head.num_slots
    cells = cells_of(detector, size)
    slots = [slots] * len(cells) if isinstance(slots, int) else slots
    counts = [s * c for s, c in zip(slots, cells, strict=True)]
    assert candidates.boxes.shape == (2, sum(counts), 4)
    assert candidates.scores.shape == (2, sum(counts), 3)
    assert candidates.boxes.dtype == candidates.scores.dtype == torch.float32
    assert candidates.levels.tolist() == sorted(candidates.levels.tolist())
    assert candidates.levels.bincount().tolist() == counts
    assert (candidates.boxes[..., 2:] >= candidates.boxes[..., :2]).all()
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_one_type_in_both_modes(detector, mode):
    predictions = detector.train(mode)(torch.randn(2, 3, 64, 64))
    assert isinstance(predictions, DensePredictions)
    assert predictions.deltas.dtype == torch.float32
    assert sum(predictions.grid.counts) == predictions.deltas.shape[1] == len(predictions.grid.anchors)


@torch.no_grad()
def test_same_answer_twice(detector):
    images = torch.randn(1, 3, 64, 64)
    first, second = detector.eval().decode(images), detector.decode(images)
    for name in (f.name for f in fields(first)):
        one, other = getattr(first, name), getattr(second, name)
        assert one is other is None or torch.equal(one, other)


def test_training_reaches_every_parameter(detector, some_targets):
    detector.train().zero_grad()
    losses = detector.criterion(detector(torch.randn(2, 3, 64, 96)), some_targets)
    assert all(loss.shape == () and loss.isfinite() and loss >= 0 for loss in losses.values())
    assert losses["classification"] > 0
    assert losses["box"] > 0
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


@pytest.mark.parametrize("rows", [0, 3])
def test_no_objects_at_all(detector, rows):
    losses = detector.train().criterion(detector(torch.randn(2, 3, 64, 64)), Targets.empty(2, rows))
    # where negatives are mined for each positive, there are none without an object
    assert (losses["classification"] > 0) == (getattr(detector.criterion, "mine", None) is None)
    assert all(loss == 0 for name, loss in losses.items() if name not in ("classification", "location"))
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


def test_levels_add_up(detector, some_targets):
    detector.eval()
    predictions = detector(torch.randn(2, 3, 64, 96))
    report = detector.criterion.by_level(predictions, some_targets)
    losses = detector.criterion(predictions, some_targets)
    num_levels = len(detector.neck.features)
    assert report.num_positives.shape == (num_levels,)
    assert report.num_positives.sum() > 0
    for name, values in report.losses.items():
        assert values.shape == (num_levels,)
        if name != "shape":  # whose rows are drawn
            torch.testing.assert_close(values.sum(), losses[name])


def test_a_half_weighted_object_counts_half(detector, some_targets):
    if detector.criterion.__class__.__name__ == "GuidedDenseCriterion":
        pytest.skip("its shapes are drawn at random")
    predictions = detector.eval()(torch.randn(2, 3, 64, 96))
    whole = detector.criterion(predictions, some_targets)
    none = detector.criterion(predictions, replace(some_targets, weights=some_targets.weights * 0))
    assert none["box"] == 0
    assert none["classification"] < whole["classification"]


def test_half_precision(detector, some_targets):
    detector.train()
    # large enough for every tap of the coarsest kernels to see a cell: oneDNN's bfloat16 leaves the gradients of
    # those that see padding alone as they lay in memory
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector(torch.randn(2, 3, 256, 256))
    assert predictions.deltas.dtype == torch.float32
    sum(detector.criterion(predictions, some_targets).values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


def test_detect(detector):
    found = detector.eval().detect(torch.randn(2, 3, 64, 96))
    assert len(found) == 2
    for detections in found:
        assert detections.image_size == (64, 96)
        assert len(detections) <= (detector.postprocess.max_detections or 10_000)
        assert (detections.scores[:-1] >= detections.scores[1:]).all()
        if detector.postprocess.clip:
            assert (detections.boxes >= 0).all()
            assert (detections.boxes[:, 2] <= 96).all()
            assert (detections.boxes[:, 3] <= 64).all()


@pytest.mark.parametrize("objects", ["some_targets", "crowded_targets"])
def test_the_host_never_waits_in_training(detector, objects, no_looking, request):
    targets = request.getfixturevalue(objects)
    detector.train()
    images = torch.randn(2, 3, 64, 96)
    with no_looking():
        report = detector.criterion.by_level(detector(images), targets)
        torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    detector.zero_grad()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_host_waits_for_no_copy(variant, imagined_gpu):
    assert imagined_gpu(lambda: build(variant)).device.type == "cuda"


def test_export(detector, decoding):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        program = torch.export.export(decoding(detector.eval()), (images,))
        exported, eager = program.module()(images), detector.decode(images)
    torch.testing.assert_close(exported.boxes, eager.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(exported.scores, eager.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(exported.levels, eager.levels)


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
