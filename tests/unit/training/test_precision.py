"""What a training computes in: chosen by measurement, kept by a run that goes on, and warned of where it is slow."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.models.factory import create_model
from pyrafuse.training import precision
from pyrafuse.training.precision import (
    SmallMapConv2d,
    StridedDepthwiseConv2d,
    choose_precision,
    measure_speedup,
    spare,
)
from pyrafuse.training.settings import RunSettings


def test_a_strided_depthwise_convolution_is_computed_in_float32():
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
    x = torch.randn(2, 6, 9, 9).bfloat16().requires_grad_()
    expected = conv(x.float()).to(torch.bfloat16)
    spared = nn.Sequential(copy.deepcopy(conv))
    spare(spared)
    with torch.autocast("cpu", torch.bfloat16):
        output = spared(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    output.float().square().sum().backward()
    assert x.grad is not None
    assert spared[0].weight.grad is not None


def test_only_strided_depthwise_convolutions_change_and_names_stay():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3, stride=2), nn.Conv2d(8, 8, 3, 2, groups=8))
    names = list(model.state_dict())
    spare(model)
    assert [type(part) for part in model] == [SmallMapConv2d, SmallMapConv2d, StridedDepthwiseConv2d]
    assert list(model.state_dict()) == names
    assert isinstance(copy.deepcopy(model)[2], StridedDepthwiseConv2d)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (5, 1)])
@pytest.mark.parametrize("kernel", [3, 7])
def test_taps_that_see_padding_alone_have_a_gradient_of_zero(size, kernel):
    """bfloat16's kernels leave it as it lay in memory; NaN is put there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, kernel, stride=2, padding=kernel // 2))
    spare(model)
    assert isinstance(model[0], SmallMapConv2d)
    x = torch.randn(4, 64, *size)
    model(x).sum().backward()
    expected = model[0].weight.grad.clone()
    for _ in range(4):
        model.zero_grad()
        litter = [torch.full((64, 64, kernel, kernel), torch.nan, dtype=torch.bfloat16) for _ in range(4)]
        del litter
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        output.float().sum().backward()
        torch.testing.assert_close(model[0].weight.grad, expected)


def test_maps_as_large_as_the_kernel_stay_in_half_precision():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1))
    spare(model)
    assert [type(part) for part in model] == [SmallMapConv2d, nn.Conv2d]
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0](torch.randn(1, 4, 3, 3)).dtype == torch.bfloat16
        assert model[0](torch.randn(1, 4, 3, 2)).dtype == torch.float32


def test_narrow_strided_convolutions_are_the_same_and_keep_to_their_buffer():
    """The kernel that is avoided overwrites other memory: in a process of its own it may."""
    code = """
import torch
from torch import nn
from pyrafuse.training.precision import NarrowStridedConv2d, spare
torch.set_num_threads(2)
for channels, size, count in ((8, 64, 2), (12, 64, 1), (4, 30, 1), (10, 16, 1)):
    plain, spared = nn.Conv2d(channels, 16, 1, stride=2), nn.Sequential(nn.Conv2d(channels, 16, 1, stride=2))
    spared[0].load_state_dict(plain.state_dict())
    spare(spared)
    assert type(spared[0]) is NarrowStridedConv2d
    images = torch.randn(count, channels, size, size).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(spared(images), plain.requires_grad_(False)(images))
    for half in (False, True) * 10:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = spared(images).float().mean()
        torch.autograd.grad(loss, spared[0].weight)
wide = nn.Sequential(nn.Conv2d(16, 16, 1, stride=2))
spare(wide)
assert type(wide[0]) is nn.Conv2d
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class TestChoice:
    """On a processor that computes in bf16 as many times as fast as ``speedup`` says."""

    def choose(self, monkeypatch, speedup, began=None, several=1.0, **run):
        self.threads = []
        times = iter((several, 1.0))
        monkeypatch.setattr(precision, "_time_convolution", lambda: next(times))
        monkeypatch.setattr(
            precision, "measure_speedup", lambda *_, **__: self.threads.append(torch.get_num_threads()) or speedup
        )
        said = []
        detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25})
        settings = RunSettings(accelerator="cpu", **run)
        return choose_precision(settings, detector, size=64, began=began, say=said.append), said

    @pytest.mark.parametrize(
        ("speedup", "chosen", "said"),
        [
            (1.8, "bf16", "computing in bf16: bf16 is 1.8 times as fast on this processor"),
            (1.05, "32", "computing in float32: bf16 is only 1.1 times as fast on this processor"),
            (0.125, "32", "computing in float32: bf16 takes 8.0 times as long on this processor"),
        ],
    )
    def test_auto_takes_what_is_measured_to_be_faster(self, monkeypatch, speedup, chosen, said):
        assert RunSettings().precision == "auto"
        assert self.choose(monkeypatch, speedup) == (chosen, [said])

    def test_where_threads_wait_for_each_other_one_measures_and_it_is_said(self, monkeypatch):
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            chosen, said = self.choose(monkeypatch, 1.8, several=50.0)
            assert (chosen, set(self.threads), torch.get_num_threads(), len(said)) == ("bf16", {1}, 2, 2)
            assert "a convolution takes 50 times as long in 2 threads as in one. With OMP_NUM_THREADS=1" in said[0]
            assert len(self.choose(monkeypatch, 1.8, several=2.0)[1]) == 1
            assert set(self.threads) == {2}
        finally:
            torch.set_num_threads(threads)

    def test_what_is_slow_is_done_where_it_is_wanted_and_its_price_is_said(self, monkeypatch):
        chosen, said = self.choose(monkeypatch, 0.125, precision="bf16")
        assert (chosen, len(said)) == ("bf16", 1)
        assert said[0].startswith(
            "bf16 takes about 8.0 times as long as float32 on this processor: --run.precision auto"
        )
        assert self.choose(monkeypatch, 1.8, precision="bf16") == ("bf16", [])
        assert self.choose(monkeypatch, 1.8, precision="32") == ("32", [])

    @pytest.mark.parametrize(
        ("began", "speedup", "chosen"), [("32", 4.0, "32"), ("bf16", 1.05, "bf16"), ("bf16", 0.9, "32")]
    )
    def test_a_run_goes_on_as_it_began_where_that_is_not_slow(self, monkeypatch, began, speedup, chosen):
        assert self.choose(monkeypatch, speedup, began)[0] == chosen

    def test_processes_that_share_a_run_do_not_measure_each_for_itself(self, monkeypatch):
        assert self.choose(monkeypatch, 4.0, devices=2) == ("32", [])

    def test_a_processor_has_no_fp16(self, monkeypatch):
        with pytest.raises(PyrafuseError, match=r"fp16 needs a GPU, .* give auto"):
            self.choose(monkeypatch, 1.0, precision="fp16")


def test_measuring_leaves_model_and_random_numbers_as_they_are():
    detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25}).train()
    before, random = copy.deepcopy(detector.state_dict()), torch.get_rng_state()
    run = RunSettings(accelerator="cpu")
    assert choose_precision(run, detector, size=64, began=None, say=lambda _: None) in ("32", "bf16")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_the_speedup_is_the_time_in_float32_over_that_in_bf16(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(precision.time, "perf_counter", lambda: clock[0])
    weight = torch.ones(1, requires_grad=True)
    lasts = {False: iter((9.0, 2.0, 3.0)), True: iter((50.0, 0.5, 4.0))}  # the first of each chooses kernels

    def forward():
        clock[0] += next(lasts[torch.is_autocast_enabled("cpu")])
        return weight * 2

    assert measure_speedup(forward, [weight], rounds=2) == 2.0 / 0.5
