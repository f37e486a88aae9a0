"""What every detector that looks twice promises: targets steer it, finite gradients, no objects, crowds, export."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
import torchvision

from pyrafuse.core.assignment import IGNORED
from pyrafuse.core.errors import PyrafuseError
from pyrafuse.core.regions import TwoStagePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.models.factory import create_model, list_models

SMALL_PARTS = {
    "region_options": {"channels": 16},
    "sampling_options": {"number": 24},
    "learning_proposal_options": {"max_per_level": 60, "max_regions": 40},
    "proposal_options": {"max_per_level": 60, "max_regions": 30},
}
FPN = {"out_channels": 16, "num_levels": 5}
TINY = {
    **SMALL_PARTS,
    "backbone": "resnet18",
    "backbone_options": {"width": 8},
    "neck_options": {"fpn": {"out_channels": 16}},
}
RECURSIVE = {
    **SMALL_PARTS,
    "backbone_options": {
        "backbone": "resnet18",
        "backbone_options": {"width": 8, "strides": (4, 8, 16, 32)},
        "neck_options": {"fpn": FPN},
    },
}
VARIANTS = {
    **{name: (name, RECURSIVE if name.endswith("rfp") else TINY) for name in list_models() if "rcnn" in name},
    "pafpn": ("faster_rcnn", {**TINY, "neck": "pafpn", "neck_options": {"pafpn": {"out_channels": 16}}}),
    "stride 8": ("faster_rcnn", {**TINY, "backbone_options": {"width": 8, "strides": (8, 16, 32)}}),
    "classes of a cascade": ("cascade_rcnn", {**TINY, "region_options": {"channels": 16, "class_agnostic": False}}),
    "boxes compared": ("faster_rcnn", {**TINY, "criterion_options": {"box_loss": "giou", "proposal_box_loss": "iou"}}),
    "timm": (
        "faster_rcnn",
        {
            **TINY,
            "backbone": "timm/mobilenetv3_small_100",
            "backbone_options": {},
            "neck": "bifpn",
            "neck_options": {"bifpn": {"out_channels": 16, "repeats": 1}},
        },
    ),
}


def build(variant: str):
    torch.manual_seed(0)
    name, options = VARIANTS[variant]
    return create_model(name, num_classes=3, **options)


@pytest.fixture(scope="module", params=VARIANTS)
def detector(request):
    return build(request.param)


def test_all_are_tried():
    assert {"cascade_rcnn", "cascade_rcnn_rfp", "faster_rcnn", "libra_rcnn"} <= set(VARIANTS)


@pytest.mark.parametrize("size", [(64, 96), (70, 103)])
@torch.no_grad()
def test_candidates(detector, size):
    candidates = detector.eval().decode(torch.randn(2, 3, *size))
    rows = candidates.scores.shape[1]
    assert 0 < rows <= 30
    is_agnostic = detector.stages[-1].head.num_boxes == 1
    assert candidates.boxes.shape == ((2, rows, 4) if is_agnostic else (2, rows, 3, 4))
    assert candidates.scores.shape == (2, rows, 3)
    assert candidates.levels.shape == (2, rows)
    assert candidates.boxes.dtype == candidates.scores.dtype == torch.float32
    assert candidates.levels.max() < len(detector.neck.features)
    assert (candidates.boxes[..., 2:] >= candidates.boxes[..., :2]).all()
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_targets_and_not_the_mode_steer_sampling(detector, some_targets, mode):
    images = torch.randn(2, 3, 64, 96)
    plain = detector.train(mode)(images)
    sampled = detector(images, some_targets)
    assert isinstance(plain, TwoStagePredictions)
    assert isinstance(sampled, TwoStagePredictions)
    assert plain.assignments == ()
    assert len(sampled.assignments) == len(sampled.stages) == len(plain.stages)
    for stage, assignment in zip(sampled.stages, sampled.assignments, strict=True):
        assert stage.classes.dtype == stage.deltas.dtype == torch.float32
        assert stage.classes.shape == (2, 24, 4)
        assert torch.equal(assignment.objects != IGNORED, stage.regions.valid)
        assert assignment.is_positive[0].any()
        assert not assignment.is_positive[1].any()
        assert stage.regions.is_object[0].sum() <= 4
    assert not any(stage.regions.is_object.any() for stage in plain.stages)


def test_regions_to_learn_from_end_where_each_image_does(detector, some_targets):
    images = torch.randn(2, 3, 64, 96)
    whole = detector.train()(images, some_targets)
    smaller = detector(images, some_targets, sizes=[(64, 96), (40, 56)])
    for stage, unbounded in zip(smaller.stages, whole.stages, strict=True):
        drawn = ~stage.regions.is_object[1]
        assert (stage.regions.boxes[1, drawn] <= torch.tensor([56, 40, 56, 40])).all()
        assert (unbounded.regions.boxes[1] > torch.tensor([56, 40, 56, 40])).any()


@torch.no_grad()
def test_same_answer_twice(detector):
    images = torch.randn(1, 3, 64, 64)
    first, second = detector.eval().decode(images), detector.decode(images)
    for name in (f.name for f in fields(first)):
        one, other = getattr(first, name), getattr(second, name)
        assert one is other is None or torch.equal(one, other)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(detector):
    images = torch.randn(3, 3, 64, 96)
    alone, among = detector.eval().decode(images[1:2]), detector.decode(images)
    torch.testing.assert_close(among.scores[1].sort(dim=0).values, alone.scores[0].sort(dim=0).values)


def test_training_reaches_every_parameter(detector, some_targets):
    detector.train().zero_grad()
    losses = detector.criterion(detector(torch.randn(2, 3, 64, 96), some_targets), some_targets)
    assert all(loss.shape == () and loss.isfinite() and loss >= 0 for loss in losses.values())
    assert all(loss > 0 for name, loss in losses.items() if "classification" in name)
    assert losses["proposal_box"] > 0
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


@pytest.mark.parametrize("rows", [0, 3])
def test_no_objects_at_all(detector, rows):
    targets = Targets.empty(2, rows)
    losses = detector.train().criterion(detector(torch.randn(2, 3, 64, 64), targets), targets)
    assert all(loss > 0 if "classification" in name else loss == 0 for name, loss in losses.items())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


def test_a_crowd_of_objects(detector):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * torch.tensor([90.0, 60.0])
    boxes = torch.cat((corners, corners + 1 + 20 * torch.rand(500, 2, generator=generator)), dim=1)
    targets = Targets.pad([boxes, boxes[:1]], [torch.arange(500) % 3, torch.tensor([2])])
    predictions = detector.train()(torch.randn(2, 3, 64, 96), targets)
    assert predictions.stages[0].classes.shape == (2, 24, 4)
    losses = detector.criterion(predictions, targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


def test_levels_add_up(detector, some_targets):
    predictions = detector.eval()(torch.randn(2, 3, 64, 96), some_targets)
    torch.manual_seed(3)  # anchors are drawn
    report = detector.criterion.by_level(predictions, some_targets)
    torch.manual_seed(3)
    losses = detector.criterion(predictions, some_targets)
    num_levels = len(detector.neck.features)
    assert report.num_positives.shape == (num_levels,)
    assert report.num_positives.sum() > 0
    for name, values in report.losses.items():
        assert values.shape == (num_levels,)
        torch.testing.assert_close(values.sum(), losses[name])


def test_an_object_without_weight_teaches_nothing(detector, some_targets):
    predictions = detector.eval()(torch.randn(2, 3, 64, 96), some_targets)
    light = replace(some_targets, weights=some_targets.weights * 0)
    torch.manual_seed(0)
    whole = detector.criterion(predictions, some_targets)
    torch.manual_seed(0)
    none = detector.criterion(predictions, light)
    for name, loss in none.items():
        assert loss == 0 if name.endswith("box") else loss < whole[name]


def test_half_precision(detector, some_targets):
    detector.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector(torch.randn(2, 3, 256, 256), some_targets)
    assert predictions.stages[0].deltas.dtype == torch.float32
    sum(detector.criterion(predictions, some_targets).values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


def test_detect(detector):
    postprocess = replace(detector.postprocess, score=0.0)
    found = detector.eval().detect(torch.randn(2, 3, 64, 96), postprocess=postprocess, sizes=[(64, 96), (32, 50)])
    for detections, (height, width) in zip(found, [(64, 96), (32, 50)], strict=True):
        assert detections.image_size == (64, 96)
        assert 0 < len(detections) <= detector.postprocess.max_detections
        assert (detections.scores[:-1] >= detections.scores[1:]).all()
        assert (detections.boxes >= 0).all()
        assert (detections.boxes[:, 2] <= width).all()
        assert (detections.boxes[:, 3] <= height).all()


@pytest.mark.parametrize("objects", ["some_targets", "crowded_targets"])
def test_the_host_waits_for_suppression_alone(detector, objects, no_looking, monkeypatch, request):
    calls = []
    nms = torchvision.ops.nms
    monkeypatch.setattr("pyrafuse.ops.suppression.nms", lambda *args: (calls.append(1), nms(*args))[1])
    targets = request.getfixturevalue(objects)
    detector.train()
    images = torch.randn(2, 3, 64, 96)
    with no_looking():
        report = detector.criterion.by_level(detector(images, targets), targets)
        torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    assert len(calls) == len(images)
    detector.zero_grad()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_host_waits_for_no_copy(variant, imagined_gpu, monkeypatch):
    # how many boxes survive suppression is for the device to say
    monkeypatch.setattr("pyrafuse.ops.suppression.nms", lambda boxes, *_: torch.arange(len(boxes), device=boxes.device))
    assert imagined_gpu(lambda: build(variant)).device.type == "cuda"


# torchvision's own shape function of nms asks for its unknown count by an old name
@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")
def test_export(detector, decoding):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        program = torch.export.export(decoding(detector.eval()), (images,))
        exported, eager = program.module()(images), detector.decode(images)
    torch.testing.assert_close(exported.boxes, eager.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(exported.scores, eager.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(exported.levels, eager.levels)


def test_criteria_ask_for_samples(detector, some_targets):
    with pytest.raises(PyrafuseError, match=r"detector\(images, targets\)"):
        detector.criterion(detector(torch.randn(2, 3, 64, 64)), some_targets)


def test_predictions_are_registered(detector, some_targets):
    leaves = torch.utils._pytree.tree_leaves(detector(torch.randn(2, 3, 64, 64), some_targets))
    assert not any(is_dataclass(leaf) for leaf in leaves)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "yolo_fpn"}, r"channels; put a neck before it"),
        ({"backbone": "vgg16"}, r"maps at strides 2, 4, 8, 16; \(4, 8, 16, 32\) were asked for"),
        ({"neck_options": {"pafpn": {}}}, r"options are given for pafpn, but the necks are fpn"),
        ({"region_options": {"depth": 3}}, r"cannot build faster_rcnn: .*'depth'"),
    ],
)
def test_complaints(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("faster_rcnn", num_classes=2, **options)
