"""What is recorded while a neck runs, and that running is not changed by it."""

import pytest
import torch
from torch import nn

from pyrafuse.core.pyramid import Neck, PyramidSpec
from pyrafuse.explain.recording import RecordingNeck, record
from pyrafuse.models.factory import create_model
from pyrafuse.necks.asff import ASFF
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


class OneLevelMore(Neck):
    def __init__(self, inputs: PyramidSpec) -> None:
        super().__init__()
        self.features = PyramidSpec((*inputs.channels, inputs.channels[-1]), (*inputs.strides, 64))

    def forward(self, pyramid):
        return (*pyramid, pyramid[-1][..., ::2, ::2])


class ThirdsLevel(nn.Module):
    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def fuse(self, pyramid):
        x = pyramid[self.level]
        return x.new_full((len(x), 3, *x.shape[-2:]), 1 / 3), x / 3

    def expand(self, fused):
        return fused + 1


class Thirds(Neck):
    """A stranger's neck that weighs."""

    def __init__(self, inputs: PyramidSpec) -> None:
        super().__init__()
        self.features = inputs
        self.levels = nn.ModuleList(ThirdsLevel(level) for level in range(3))

    def forward(self, pyramid):
        return tuple(level.expand(level.fuse(pyramid)[1]) for level in self.levels)


def assert_equal(got, expected):
    assert len(got) == len(expected)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_asff_alone(pyramid):
    neck = ASFF(SPEC).eval()
    recorder = RecordingNeck(neck)
    assert recorder.features == SPEC
    assert_equal(recorder(pyramid), neck(pyramid))
    assert_equal(recorder.weights, [level.fuse(pyramid)[0] for level in neck.levels])
    assert_equal(recorder.fused, [level.fuse(pyramid)[1] for level in neck.levels])


def test_asff_within_chains_of_chains(pyramid):
    fpn, asff = YOLOFPN(SPEC, channels=(4, 4, 4), widen=(False,) * 3).eval(), ASFF(PyramidSpec((4, 4, 4), SPEC.strides))
    asff.eval()
    chain = NeckChain([NeckChain([fpn, asff]), Doubled(asff.features)])
    recorder = RecordingNeck(chain)
    assert_equal(recorder(pyramid), chain(pyramid))
    assert_equal(recorder.weights, [level.fuse(fpn(pyramid))[0] for level in asff.levels])
    assert_equal(recorder.fused, [level.fuse(fpn(pyramid))[1] for level in asff.levels])


@pytest.mark.parametrize("fusion", [sum_fusion, concat_fusion])
def test_a_fusion_without_weights(fusion, pyramid):
    fpn = YOLOFPN(SPEC, channels=(4, 4, 4), widen=(False,) * 3).eval()
    chain = NeckChain([fpn, fusion(fpn.features).eval()])
    recorder = RecordingNeck(chain)
    assert_equal(recorder(pyramid), chain(pyramid))
    assert recorder.weights is None
    assert_equal(recorder.sources, fpn(pyramid))
    for level, fused in zip(chain.necks[1].levels, recorder.fused, strict=True):
        resized = [
            resize(x, fused.shape[-2:]) if i != level.level else x
            for i, (resize, x) in enumerate(zip(level.resizes, recorder.sources, strict=True))
        ]
        expected = sum(resized) if fusion is sum_fusion else level.merge(torch.cat(resized, dim=1))
        torch.testing.assert_close(fused, expected)


def test_of_two_necks_that_weigh_the_last_counts(pyramid):
    chain = NeckChain([ASFF(SPEC).eval(), Thirds(SPEC)])
    recorder = RecordingNeck(chain)
    assert_equal(recorder(pyramid), chain(pyramid))
    assert_equal(recorder.weights, [torch.full((2, 3, side, side), 1 / 3) for side in (12, 6, 3)])


@pytest.mark.parametrize("neck", [Doubled(SPEC), NeckChain([ASFF(SPEC).eval(), OneLevelMore(SPEC)])])
def test_without_weights_of_the_output_levels_the_output_is_kept(neck, pyramid):
    recorder = RecordingNeck(neck)
    assert_equal(recorder(pyramid), neck(pyramid))
    assert recorder.weights is None
    assert_equal(recorder.fused, neck(pyramid))


def test_a_pass_forgets_the_one_before(pyramid):
    recorder = RecordingNeck(Thirds(SPEC))
    recorder(pyramid)
    recorder(tuple(x[:1] for x in pyramid))
    assert recorder.weights is not None
    assert recorder.weights[0].shape == (1, 3, 12, 12)


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
