"""What the YOLO heads and detectors promise, training and leaving Python included."""

from dataclasses import fields

import pytest
import torch

from pyrafuse.assigners.neighbours import NeighbourAssigner
from pyrafuse.core.predictions import GuidedPredictions
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.core.targets import Targets
from pyrafuse.heads.registry import HEADS
from pyrafuse.models.factory import create_model, list_models

DARKNET = {"backbone_options": {"width": 0.25, "depths": (1, 1, 1, 1, 1)}}
MOBILE = {"backbone_options": {"width": 0.25}}
SMALL = {
    "yolov3_small": MOBILE,
    "yolov3_asff_small": MOBILE,
    "yolov3": {**DARKNET, "neck_options": {"yolo_fpn": {"width": 1 / 8}}},
    "yolov3_plain": {**DARKNET, "neck_options": {"yolo_fpn": {"width": 1 / 8}}},
    "yolov3_asff": {
        **DARKNET,
        "neck_options": {"yolo_fpn": {"width": 1 / 8}, "asff": {"out_channels": (16, 24, 32)}},
        "head_options": {"rfb": True},
    },
}
VARIANTS = {
    **{name: (name, SMALL.get(name, {})) for name in list_models() if name.startswith("yolov3")},
    "plain anchors": ("yolov3", {**SMALL["yolov3"], "head_options": {"guided": False, "adaption": False}}),
    "neighbours": (
        "yolov3_asff_small",
        {
            **MOBILE,
            "head_options": {"reach": 1.0},
            "assigner_options": {"radius": 1},
            "criterion_options": {"iou_objectness": True, "label_smoothing": True, "box_weight": 2.0},
        },
    ),
    "timm": ("yolov3_asff_small", {"backbone": "timm/mobilenetv3_small_100"}),
}


def build(variant: str):
    torch.manual_seed(0)
    name, options = VARIANTS[variant]
    return create_model(name, num_classes=3, **options)


@pytest.fixture(scope="module", params=VARIANTS)
def detector(request):
    return build(request.param)


@pytest.mark.parametrize("size", [(64, 96), (72, 104)])
@torch.no_grad()
def test_candidates(detector, size):
    images = torch.randn(2, 3, *size)
    candidates = detector.eval().decode(images)
    grid = detector(images).grid
    areas = [-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32)]
    slots = detector.head.num_slots
    assert candidates.boxes.shape == (2, slots * sum(areas), 4)
    assert candidates.scores.shape == (2, slots * sum(areas), 3)
    assert candidates.boxes.dtype == candidates.scores.dtype == torch.float32
    assert candidates.levels.bincount().tolist() == [slots * area for area in areas]
    assert (candidates.boxes[..., 2:] >= candidates.boxes[..., :2]).all()
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()
    assert grid.starts[:, 0].tolist() == [slots * (areas[1] + areas[2]), slots * areas[2], 0]
    assert grid.sizes.tolist() == [[-(-size[1] // s), -(-size[0] // s)] for s in (8, 16, 32)]


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_one_type_in_both_modes(detector, mode):
    predictions = detector.train(mode)(torch.randn(2, 3, 64, 64))
    assert isinstance(predictions, GuidedPredictions)
    assert predictions.deltas.dtype == torch.float32


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
    sum(losses.values()).backward()
    guides = {id(p) for p in detector.head.guides.parameters()} if detector.head.guides is not None else set()
    for name, parameter in detector.named_parameters():
        if id(parameter) in guides and parameter.grad is None:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


@pytest.mark.parametrize("rows", [0, 3])
def test_no_objects_at_all(detector, rows):
    losses = detector.train().criterion(detector(torch.randn(2, 3, 64, 64)), Targets.empty(2, rows))
    assert losses["objectness"] > 0
    assert all(loss == 0 for name, loss in losses.items() if name != "objectness")
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


@pytest.mark.parametrize("variant", ["yolov3_asff", "neighbours"])
def test_half_precision(variant, some_targets):
    detector = build(variant).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector(torch.randn(2, 3, 32, 64))
    assert predictions.deltas.dtype == torch.float32
    losses = detector.criterion(predictions, some_targets)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def test_detect(detector):
    found = detector.eval().detect(torch.randn(2, 3, 64, 96))
    assert len(found) == 2
    for detections in found:
        assert detections.image_size == (64, 96)
        assert len(detections) <= detector.postprocess.max_detections
        assert (detections.scores[:-1] >= detections.scores[1:]).all()


@pytest.mark.parametrize("objects", ["some_targets", "crowded_targets"])
def test_the_host_never_waits_in_training(detector, objects, no_looking, request):
    targets = request.getfixturevalue(objects)
    detector.train()
    images = torch.randn(2, 3, 64, 96)
    with no_looking():
        predictions = detector(images)
        report = detector.criterion.by_level(predictions, targets)
        total = torch.stack([values.sum() for values in report.losses.values()]).sum()
        total.backward()
    detector.zero_grad()


def look_backwards(x):
    x.requires_grad_().register_hook(lambda gradient: gradient.nonzero())
    x.sum().backward()


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x.max().item(), lambda x: x.nonzero(), lambda x: x[x > 0], bool, lambda x: x.unique(),
        lambda x: x.repeat_interleave(x.long()), lambda x: x.index_put_((x > 0,), x), lambda x: x.long().bincount(),
        lambda x: range(x.long()), look_backwards,
    ],
)  # fmt: skip
def test_looking_is_noticed(look, no_looking):
    with pytest.raises(AssertionError, match="wait"), no_looking():
        look(torch.ones(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_host_waits_for_no_copy(variant, imagined_gpu):
    assert imagined_gpu(lambda: build(variant)).device.type == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits_for_a_gpu(detector, some_targets):
    detector.cuda().train()
    images, targets = torch.randn(2, 3, 64, 96).cuda(), some_targets.to("cuda")
    sum(detector.criterion(detector(images), targets).values()).backward()  # algorithms are chosen at first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        predictions = detector(images)
        report = detector.criterion.by_level(predictions, targets)
        torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        detector.zero_grad()
        detector.cpu()


def test_export(detector, decoding):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        program = torch.export.export(decoding(detector.eval()), (images,))
        exported, eager = program.module()(images), detector.decode(images)
    torch.testing.assert_close(exported.boxes, eager.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(exported.scores, eager.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(exported.levels, eager.levels)


def test_neighbours_are_named_by_their_options():
    assert isinstance(build("neighbours").criterion.assigner, NeighbourAssigner)


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
