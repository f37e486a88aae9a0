"""What every detector promises: the same answer twice, finite gradients, no objects, no waiting, export."""

from dataclasses import fields

import pytest
import torch
import torchvision

from pyrafuse.core.targets import Targets
from pyrafuse.models.two_stage import TwoStageDetector
from pyrafuse.training.precision import spare


@pytest.mark.parametrize("size", [(64, 96), (70, 103)])
@torch.no_grad()
def test_candidates(detector, size):
    candidates = detector.eval().decode(torch.randn(2, 3, *size))
    rows = candidates.scores.shape[1]
    assert rows > 0
    assert candidates.scores.shape == (2, rows, 3)
    assert candidates.boxes.shape in ((2, rows, 4), (2, rows, 3, 4))
    assert candidates.levels.shape in ((rows,), (2, rows))
    assert candidates.levels.max() < len(detector.neck.features)
    assert candidates.boxes.dtype == candidates.scores.dtype == torch.float32
    assert (candidates.boxes[..., 2:] >= candidates.boxes[..., :2]).all()
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()


@torch.no_grad()
def test_same_answer_twice(detector):
    images = torch.randn(1, 3, 64, 64)
    first, second = detector.eval().decode(images), detector.decode(images)
    for name in (f.name for f in fields(first)):
        one, other = getattr(first, name), getattr(second, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_training_reaches_every_parameter(detector, some_targets):
    detector.train().zero_grad()
    losses = detector.criterion(detector(torch.randn(2, 3, 64, 96), some_targets), some_targets)
    assert all(loss.shape == () and loss.isfinite() and loss >= 0 for loss in losses.values())
    assert all(loss > 0 for name, loss in losses.items() if "classification" in name)
    sum(losses.values()).backward()
    guides = getattr(detector.head, "guides", None)
    # a level that answers for nothing guides no anchor
    spared = {id(p) for p in guides.parameters()} if isinstance(guides, torch.nn.ModuleList) else set()
    for name, parameter in detector.named_parameters():
        if parameter.grad is None and id(parameter) in spared:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


@pytest.mark.parametrize("rows", [0, 3])
def test_no_objects_at_all(detector, rows):
    targets = Targets.empty(2, rows)
    losses = detector.train().criterion(detector(torch.randn(2, 3, 64, 64), targets), targets)
    of_background = {name for name in losses if "classification" in name or name == "location"}
    of_background = {"objectness"} if "objectness" in losses else of_background
    assert all(loss == 0 for name, loss in losses.items() if name not in of_background)
    # where negatives are mined for each positive, there are none without an object
    is_mined = getattr(detector.criterion, "mine", None) is not None
    assert all(losses[name] == 0 if is_mined else losses[name] > 0 for name in of_background - {"location"})
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    detector.zero_grad()


def test_levels_add_up(detector, some_targets):
    predictions = detector.eval()(torch.randn(2, 3, 64, 96), some_targets)
    torch.manual_seed(3)  # some rows are drawn
    report = detector.criterion.by_level(predictions, some_targets)
    torch.manual_seed(3)
    losses = detector.criterion(predictions, some_targets)
    num_levels = len(detector.neck.features)
    assert report.num_positives.shape == (num_levels,)
    assert report.num_positives.sum() > 0
    for name, values in report.losses.items():
        assert values.shape == (num_levels,)
        torch.testing.assert_close(values.sum(), losses[name])


def test_half_precision(detector, some_targets):
    spare(detector.train())
    # large enough for every tap of the coarsest kernels to see a cell: oneDNN's bfloat16 leaves the gradients of
    # those that see padding alone as they lay in memory
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = detector(torch.randn(2, 3, 256, 256), some_targets)
    losses = detector.criterion(predictions, some_targets)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    detector.zero_grad()


def test_detect(detector):
    sizes = [(64, 96), (32, 50)]
    found = detector.eval().detect(torch.randn(2, 3, 64, 96), sizes=sizes)
    for detections, (height, width) in zip(found, sizes, strict=True):
        assert detections.image_size == (64, 96)
        assert len(detections) <= (detector.postprocess.max_detections or 10_000)
        assert (detections.scores[:-1] >= detections.scores[1:]).all()
        if detector.postprocess.clip:
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
    assert len(calls) == (len(images) if isinstance(detector, TwoStageDetector) else 0)
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


def test_the_host_waits_for_no_copy(detector_name, build, imagined_gpu, monkeypatch):
    # how many boxes survive suppression is for the device to say
    monkeypatch.setattr("pyrafuse.ops.suppression.nms", lambda boxes, *_: torch.arange(len(boxes), device=boxes.device))
    assert imagined_gpu(lambda: build(detector_name)).device.type == "cuda"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits_for_a_gpu(detector, some_targets):
    if isinstance(detector, TwoStageDetector):
        pytest.skip("suppression is waited for")
    detector.cuda().train()
    images, targets = torch.randn(2, 3, 64, 96).cuda(), some_targets.to("cuda")
    sum(detector.criterion(detector(images), targets).values()).backward()  # algorithms are chosen at first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        report = detector.criterion.by_level(detector(images), targets)
        torch.stack([values.sum() for values in report.losses.values()]).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        detector.zero_grad()
        detector.cpu()
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


# torchvision's own shape function of nms asks for its unknown count by an old name
@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")
def test_export(detector, decoding):
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        program = torch.export.export(decoding(detector.eval()), (images,))
        exported, eager = program.module()(images), detector.decode(images)
    torch.testing.assert_close(exported.boxes, eager.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(exported.scores, eager.scores, rtol=1e-4, atol=1e-5)
    assert torch.equal(exported.levels, eager.levels)
