"""Gradients at the sources: finite differences, equations 4 and 6, necks without weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pyrafuse.base.conflicts import NETWORK, SUM, WEIGHTS
from pyrafuse.base.errors import PyrafuseError
from pyrafuse.core.targets import Targets
from pyrafuse.explain.gradients import compute_source_gradients
from pyrafuse.explain.recording import Given, record, replace_parts
from pyrafuse.models.factory import create_model

TINY = {
    "backbone": {"width": 0.125, "depths": (1, 1, 1, 1, 1)},
    "necks": {"yolo_fpn": {"width": 1 / 32}, "asff": {"out_channels": (8, 12, 16)}},
    "head": {"adaption": False},
}


def build(name="yolov3_asff", **changes):
    torch.manual_seed(0)
    detector = create_model(name, num_classes=2, **{**TINY, **changes})
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector(torch.randn(4, 3, 64, 96))
        for output in detector.head.outputs:  # a head that hardly looks has no gradient to speak of
            output.weight.mul_(30)
    return detector.double().eval()


@pytest.fixture(scope="module")
def batch():
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    boxes = torch.tensor([[20.0, 30, 30, 43], [18, 10, 80, 55], [-18, -5, 98, 85]])
    targets = Targets.pad([boxes, boxes[1:2]], [torch.tensor([0, 1, 0]), torch.tensor([1])])
    # in float32 they would be the noise of the finite differences
    return images, replace(targets, boxes=targets.boxes.double(), weights=targets.weights.double())


@pytest.fixture(scope="module")
def asff():
    return build()


@pytest.fixture(scope="module")
def gradients(asff, batch):
    return compute_source_gradients(asff, *batch)


def losses_by_level(detector, sources, targets):
    twin = replace_parts(detector, backbone=Given(sources), neck=detector.neck.necks[1])
    report = detector.criterion.by_level(twin(torch.zeros(1, 3, 1, 1)), targets)
    return torch.stack(list(report.losses.values())).sum(dim=0)


def test_the_networks_gradient_is_that_of_finite_differences(asff, batch, gradients):
    images, targets = batch
    with torch.no_grad():
        sources = asff.neck.necks[0](asff.backbone(images))
    generator = torch.Generator().manual_seed(2)
    step = 1e-6
    for source, x in enumerate(sources):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        shifted = [
            losses_by_level(asff, (*sources[:source], x + sign * step * direction, *sources[source + 1 :]), targets)
            for sign in (1, -1)
        ]
        expected = (shifted[0] - shifted[1]).detach() / (2 * step)
        got = (gradients.received[NETWORK][source] * direction).flatten(1).sum(dim=1)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        assert got.abs().min() > 1e-4  # every output level reaches every source


def test_each_output_level_has_its_part_of_the_whole_gradient(asff, batch, gradients):
    images, targets = batch
    with torch.no_grad():
        sources = asff.neck.necks[0](asff.backbone(images))
    leaves = tuple(x.requires_grad_() for x in sources)
    losses_by_level(asff, leaves, targets).sum().backward()
    for x, received in zip(leaves, gradients.received[NETWORK], strict=True):
        torch.testing.assert_close(received.sum(dim=0), x.grad)


def test_equation_6_holds_where_the_weights_are_constant(batch):
    """With a bias alone the weights depend on nothing: equation 6 is the network's gradient, and the sum's times it."""
    detector = build()
    for level in detector.neck.necks[1].levels:
        level.weigh.weight.data.zero_()
        level.weigh.bias.data.copy_(torch.tensor([0.5, -1.0, 2.0]))
    gradients = compute_source_gradients(detector, *batch)
    weights = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64).softmax(dim=0)
    for source in range(3):
        network, weighted, unweighted = (gradients.received[rule][source] for rule in (NETWORK, WEIGHTS, SUM))
        torch.testing.assert_close(weighted, network)
        torch.testing.assert_close(weighted, weights[source] * unweighted)
        assert unweighted.abs().amax(dim=(1, 2, 3, 4)).min() > 0


def test_at_a_levels_own_resolution_the_weights_multiply_each_position(asff, batch, gradients):
    """The source of an output level's own stride is not resized: equation 6 holds position by position."""
    twin, neck = record(asff)
    with torch.no_grad():
        twin(batch[0])
    for level, fusion in enumerate(neck.fusions):
        expected = fusion.weights[:, level, None] * gradients.received[SUM][level][level]
        torch.testing.assert_close(gradients.received[WEIGHTS][level][level], expected)


def test_positives_are_those_of_the_criterion(asff, batch, gradients):
    predictions = asff(batch[0])
    cells = predictions.grid.cells_of(asff.criterion.by_level(predictions, batch[1]).is_positive)
    for level, is_positive in enumerate(gradients.is_positive):
        torch.testing.assert_close(is_positive[level], cells[level])
    assert gradients.source_strides == gradients.output_strides == (8, 16, 32)
    conflicts = gradients.conflicts()
    assert conflicts.keys() == {NETWORK, WEIGHTS, SUM}
    assert sum(c.mixed for c in conflicts[SUM]) > 0
    for rule, of_sources in conflicts.items():
        for c, reference, is_in_conflict in zip(of_sources, conflicts[SUM], gradients.conflict_maps(rule), strict=True):
            assert (c.mixed, c.judged) == (reference.mixed, reference.conflicting)
            assert is_in_conflict.sum() == c.conflicting


def test_a_neck_without_weights_tells_the_networks_gradient_at_what_it_reads(batch):
    detector = build("yolov3", necks={"yolo_fpn": {"width": 1 / 32}})
    gradients = compute_source_gradients(detector, *batch)
    assert gradients.received.keys() == {NETWORK}
    channels = detector.backbone.features.channels
    assert [tuple(g.shape) for g in gradients.received[NETWORK]] == [
        (3, 2, c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=True)
    ]
    # a top-down pyramid: the finest source reaches only the finest output
    assert gradients.received[NETWORK][0][1:].abs().max() == 0
    assert gradients.received[NETWORK][2].abs().amax(dim=(1, 2, 3, 4)).min() > 0
    (of_network,) = gradients.conflicts().values()
    assert all(c.judged == c.conflicting for c in of_network)


@pytest.mark.parametrize("fusion", ["sum_fusion", "concat_fusion"])
def test_plain_fusions_tell_the_networks_gradient_at_what_they_fuse(fusion, batch):
    necks = ("yolo_fpn", fusion)
    detector = build(neck=necks, necks={"yolo_fpn": {"width": 1 / 32}, fusion: {"out_channels": (8, 12, 16)}})
    gradients = compute_source_gradients(detector, *batch)
    assert gradients.received.keys() == {NETWORK}
    assert gradients.source_strides == gradients.output_strides == (8, 16, 32)
    with torch.no_grad():
        sources = detector.neck.necks[0](detector.backbone(batch[0]))
    sources = tuple(x.requires_grad_() for x in sources)
    losses = losses_by_level(detector, sources, batch[1])
    for level, loss in enumerate(losses):
        expected = torch.autograd.grad(loss, sources, retain_graph=True)
        for got, wanted in zip(gradients.received[NETWORK], expected, strict=True):
            torch.testing.assert_close(got[level], wanted)
            assert wanted.abs().max() > 0  # every source teaches every output


ONE_STEP = """
channels: 16
merges:
  P3: {inputs: [C3, C4, C5], fusion: spatial_softmax, level: 3}
  P4: {inputs: [C3, C4, C5], fusion: softmax, level: 4}
  P5: {inputs: [C3, C4, C5], fusion: fast_normalized, level: 5}
outputs: [P3, P4, P5]
"""


def test_a_graph_that_weighs_all_levels_in_one_step_tells_the_rules(batch):
    gradients = compute_source_gradients(build("yolov3", neck=ONE_STEP, necks={}), *batch)
    assert gradients.received.keys() == {NETWORK, WEIGHTS, SUM}
    for source in range(3):
        weighted, unweighted = gradients.received[WEIGHTS][source], gradients.received[SUM][source]
        torch.testing.assert_close(weighted[1], unweighted[1] / 3)
        torch.testing.assert_close(weighted[2], unweighted[2] / 3.0001)
        torch.testing.assert_close(gradients.received[NETWORK][source][1:], weighted[1:])
        assert not torch.allclose(weighted[0], unweighted[0] / 3)


def test_merges_of_merges_have_no_equation_of_one_step(batch):
    graph = ONE_STEP.replace("P4: {inputs: [C3, C4, C5]", "P4: {inputs: [P3, C4, C5]")
    graph = graph.replace("P5: {inputs: [C3", "P5: {inputs: [P4")
    gradients = compute_source_gradients(build("yolov3", neck=graph, necks={}), *batch)
    assert gradients.received.keys() == {NETWORK}


def test_a_projection_is_passed_over(batch):
    """It mixes no levels: what the neck before it reads is what learns."""
    options = {"yolo_fpn": {"width": 1 / 32}, "projection": {"out_channels": 8}}
    detector = build("yolov3", neck=("yolo_fpn", "projection"), necks=options)
    gradients = compute_source_gradients(detector, *batch)
    assert [g.shape[2] for g in gradients.received[NETWORK]] == list(detector.backbone.features.channels)


def test_nothing_is_left_in_the_detector(asff, batch):
    asff.zero_grad()
    compute_source_gradients(asff, *batch)
    assert all(p.grad is None for p in asff.parameters())


def test_a_criterion_that_knows_no_levels_is_refused(asff, batch):
    with pytest.raises(PyrafuseError, match="Identity has none: explain this detector without --gradients"):
        compute_source_gradients(replace_parts(asff, criterion=nn.Identity()), *batch)
