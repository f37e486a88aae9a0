"""Contestants are told apart where the rounds tell them apart, and each figure follows from the times."""

import json

import pytest
import torch

from pyrafuse.cli.main import main
from pyrafuse.inference import dissecting
from pyrafuse.inference.dissecting import CONVOLUTION, GEMM, TorchLaboratory
from pyrafuse.inference.racing import Contestant, make_pictures, race
from pyrafuse.inference.turns import compare_in_pairs
from pyrafuse.models.factory import create_model

SMALL = {"backbone": {"width": 0.25}}


def test_what_always_takes_longer_is_told_whatever_the_load():
    theirs = [10.0, 30.0, 10.0, 90.0, 11.0, 10.0, 12.0, 10.0, 14.0, 10.0]
    least, median, most = compare_in_pairs([x + 2 + rank / 10 for rank, x in enumerate(theirs)], theirs)
    assert (least, median, most) == pytest.approx((2.1, 2.45, 2.8))


def test_what_takes_longer_by_chance_is_within_the_noise():
    least, _, most = compare_in_pairs([10, 12, 10, 12, 10, 12, 10, 12], [11] * 8)
    assert least == -1
    assert most == 1


def test_one_round_tells_what_it_has_seen():
    assert compare_in_pairs([3], [1]) == (2, 2, 2)


@pytest.fixture
def contestants():
    torch.manual_seed(0)
    detector = create_model("yolov3_small", num_classes=2, **SMALL).eval()
    names = ("slow", "fast", "middle")
    return [Contestant(name, "eager", detector, gflops=3.0, parameters=7) for name in names]


def test_figures_follow_from_the_times(contestants, monkeypatch):
    times = {"0": [40, 60, 50], "1": [10, 10, 30], "2": [20, 20, 20], GEMM: [1, 1, 1]}
    measured = lambda work, **_: {name: {**times, CONVOLUTION: [2, 2, 2]}.get(name, [3, 3, 3]) for name in work}  # noqa: E731
    monkeypatch.setattr(dissecting, "time_in_turns", measured)
    result = race(contestants, make_pictures(2), size=64, rounds=1, laboratory=TorchLaboratory(torch.device("cpu")))
    assert [f.name for f in result.figures] == ["fast", "middle", "slow"]
    assert result.peak_gflops == pytest.approx({GEMM: 2 * 1024**3 / 1e6, CONVOLUTION: 9 * 2**28 / 1e6})
    slow = result.figures[-1]
    assert (slow.latency_ms, slow.p95_ms, slow.images_per_second) == (50, 60, 40)
    assert slow.peak_share == pytest.approx(3 * 40 / (9 * 2**28 / 1e6))
    assert slow.slower_ms[1] == 30
    assert list(slow.parts_ms) == ["reading", "fitting", "backbone", "neck", "head", "suppression"]
    assert min(slow.parts_ms.values()) > 0
    assert slow.peak_memory_mb is not None


def test_the_command_writes_figures_and_a_picture(tmp_path, capsys):
    path = tmp_path / "small.ckpt"
    create_model("yolov3_small", num_classes=2, **SMALL).save(path)
    told, picture = tmp_path / "a.json", tmp_path / "a.png"
    words = ["bench", str(path), "--size", "64", "--rounds", "1", "--device", "cpu", "--batch", "2"]
    assert main([*words, "--json", str(told), "--picture", str(picture)]) == 0
    figures = json.loads(told.read_text())["figures"]
    assert {f["backend"] for f in figures} == {"eager", "optimized"}
    assert len({f["gflops"] for f in figures}) == len({f["parameters"] for f in figures}) == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert "3x3 convolution" in output
    assert output.count(str(path)) == 4  # in each table, once a backend


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench"], "models is required"),
        (["bench", "yolov3_small", "--backends", "tensorrt"], "tensorrt"),
        (["bench", "nowhere.ckpt"], "no such checkpoint: nowhere.ckpt"),
        (["bench", "yolov3_small", "--rounds", "0"], "rounds"),
        (["bench", "yolov3_small", "--backends", "onnx", "--precision", "bf16"], "onnx computes in fp32 here"),
    ],
)
def test_what_cannot_be_timed_is_refused(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "0"), "exported files run on the processor: leave --device 0 out"),
        (("--precision", "bf16"), "exported files compute as they were exported: leave --precision bf16 out"),
    ],
)
def test_exported_files_run_as_they_are(words, message, tmp_path, capsys):
    file = tmp_path / "a.onnx"
    file.write_bytes(b"x")
    assert main(["bench", str(file), *words]) == 2
    assert message in capsys.readouterr().err
