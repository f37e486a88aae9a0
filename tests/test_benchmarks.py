"""The benchmarks' own words on what they are given."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fcos", "retinanett"], "unknown model 'retinanett'; did you mean 'retinanet'?"),
        (
            ["fcos", "--device", "cpu", "--backbone", "resnet81"],
            "unknown backbone 'resnet81'; did you mean 'resnet18'?",
        ),
    ],
)
def test_unknown_names(words, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["step_profile.py", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / "step_profile.py"), run_name="__main__")
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_gpu_its_benchmark_ends_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["on_gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / "on_gpu.py"), run_name="__main__")
    assert stop.value.code == 2
    assert "no GPU here" in capsys.readouterr().err
