"""What is recorded while a neck runs, and that running is not changed by it."""

from functools import partial

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import Neck, PyramidSpec
from pyrafuse.explain.recording import RecordingNeck, record
from pyrafuse.layers.fusion_weights import FusionWeights, find_fusions
from pyrafuse.models.factory import create_model
from pyrafuse.necks.asff import ASFF
from pyrafuse.necks.bifpn import bifpn
from pyrafuse.necks.plain_fusion import concat_fusion, sum_fusion
from pyrafuse.necks.registry import NeckChain
from pyrafuse.necks.yolo_fpn import YOLOFPN

SPEC = PyramidSpec(channels=(4, 6, 8), strides=(8, 16, 32))


@pytest.fixture
def pyramid():
    generator = torch.Generator().manual_seed(0)
    sides = (12, 6, 3)
    return tuple(torch.randn(2, c, s, s, generator=generator) for c, s in zip(SPEC.channels, sides, strict=True))


class Doubled(Neck):
    def __init__(self, inputs: PyramidSpec) -> None:
        super().__init__()
        self.features = inputs

    def forward(self, pyramid):
        return tuple(2 * x for x in pyramid)


class Thirds(Neck):
    """A stranger's neck that weighs."""

    def __init__(self, inputs: PyramidSpec) -> None:
        super().__init__()
        self.features = inputs
        names = ("fine", "middle", "coarse")
        self.weights = nn.ModuleList(FusionWeights(n, names, stride=s) for n, s in zip(names, (8, 16, 32), strict=True))

    def forward(self, pyramid):
        made = []
        for x, weights in zip(pyramid, self.weights, strict=True):
            made.append(weights(x.new_full((len(x), 3, *x.shape[-2:]), 1 / 3), [x, x, x]) + 1)
        return tuple(made)


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def fused_by(neck, pyramid):
    """What each fusion of ``neck`` is given and gives, by hooks on the neck itself."""
    seen = []
    handles = [
        fusion.register_forward_hook(lambda _, given, fused: seen.append((*given, fused)))
        for fusion in find_fusions(neck).values()
    ]
    neck(pyramid)
    for handle in handles:
        handle.remove()
    return seen


def assert_same_fusions(recorder, expected):
    assert len(recorder.fusions) == len(expected) > 0
    for got, (weights, maps, fused) in zip(recorder.fusions, expected, strict=True):
        assert_equal([got.weights, got.fused, *got.maps], [weights, fused, *maps])


@pytest.mark.parametrize("create", [ASFF, Thirds, partial(bifpn, out_channels=8, num_levels=4, repeats=2)])
def test_every_fusion_is_kept(create, pyramid):
    neck = create(SPEC).eval()
    recorder = RecordingNeck(neck)
    assert recorder.features == neck.features
    assert_equal(recorder(pyramid), neck(pyramid))
    assert_equal(recorder.read[0], pyramid)
    assert_equal(recorder.made, neck(pyramid))
    assert_same_fusions(recorder, fused_by(neck, pyramid))
    assert not any(module._forward_hooks for module in neck.modules())
    assert [p.data_ptr() for p in recorder.neck.parameters()] == [p.data_ptr() for p in neck.parameters()]


def test_parts_of_chains_of_chains(pyramid):
    fpn, asff = YOLOFPN(SPEC, channels=(4, 4, 4), widen=(False,) * 3).eval(), ASFF(PyramidSpec((4, 4, 4), SPEC.strides))
    asff.eval()
    chain = NeckChain([NeckChain([fpn, asff]), Doubled(asff.features)])
    recorder = RecordingNeck(chain)
    assert_equal(recorder(pyramid), chain(pyramid))
    assert_equal(recorder.read[1], fpn(pyramid))
    assert_equal(recorder.read[2], asff(fpn(pyramid)))
    assert_same_fusions(recorder, fused_by(asff, fpn(pyramid)))
    assert [fusion.part for fusion in recorder.fusions] == [1, 1, 1]


@pytest.mark.parametrize("create", [sum_fusion, concat_fusion, Doubled])
def test_a_neck_without_weights(create, pyramid):
    neck = create(SPEC).eval()
    recorder = RecordingNeck(neck)
    assert_equal(recorder(pyramid), neck(pyramid))
    assert recorder.fusions == []


def test_a_pass_forgets_the_one_before(pyramid):
    recorder = RecordingNeck(Thirds(SPEC))
    recorder(pyramid)
    recorder(tuple(x[:1] for x in pyramid))
    assert [f.name for f in recorder.fusions] == ["fine", "middle", "coarse"]
    assert recorder.fusions[0].weights.shape == (1, 3, 12, 12)
    assert len(recorder.read) == 1


def test_the_detector_is_left_as_it_is():
    detector = create_model("yolov3_asff_small", num_classes=3).eval()
    neck = detector.neck
    names = set(detector.state_dict())
    twin, recorder = record(detector)
    assert detector.neck is neck
    assert set(detector.state_dict()) == names
    assert twin.neck is recorder
    assert twin.backbone is detector.backbone
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert_equal([twin(images).deltas], [detector(images).deltas])
