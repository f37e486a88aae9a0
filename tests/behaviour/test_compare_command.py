"""`pyrafuse compare` as a person uses it: two real trainings, a neck of one's own, a failure."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pyrafuse.cli.main import main
from pyrafuse.comparison import comparing
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.inference.measuring import count_parameters
from pyrafuse.models.factory import create_model
from pyrafuse.necks.registry import NECKS

TINY = {
    "model": {
        "name": "yolov3_asff",
        "options": {
            "backbone": {"width": 0.25, "depths": [1, 1, 1, 1, 1]},
            "necks": {"yolo_fpn": {"width": 0.125}, "asff": {"out_channels": [16, 24, 32]}},
            "head": {"adaption": False},
        },
    },
    "data": {"size": 64, "workers": 0},
    "run": {"batch_size": 4, "epochs": 1},
}


MY_NECK = """
from functools import partial
from pyrafuse.necks.plain_fusion import sum_fusion
from pyrafuse.necks.registry import NECKS
if "mine" not in NECKS.names():
    NECKS.add("mine", partial(sum_fusion))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with generated images, a tiny recipe and a neck of the user's own; the working folder."""
    write_shapes(tmp_path / "cells", num_train=8, num_val=3, size=64)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "my_neck.py").write_text(MY_NECK)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    NECKS._entries.pop("mine", None)


def test_a_comparison_of_one_s_own_neck(place, capsys, monkeypatch):
    words = ["cells", "--necks", "asff,mine", "--seeds", "0", "--recipe", "tiny.yaml", "--device", "cpu"]
    argv = ["--import", "my_neck.py", "compare", *words, "--output", "out"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "cells: 1 epoch of 2 batches, seed 0, 64 px" in out
    assert "none: neither learnt anything" in out
    assert "2/2  done    mine on cells, seed 0" in err
    names = {path.name for path in Path("out").iterdir()}
    assert names == {"comparison.yaml", "comparison.md", "comparison.json", "comparison.png", "cells"}
    (data,) = json.loads(Path("out/comparison.json").read_text())["data"]
    asff, mine = data["variants"]
    with torch.device("meta"):
        expected = create_model("yolov3_asff", num_classes=5, **TINY["model"]["options"])
    assert asff["cost"]["parameters"] == count_parameters(expected)
    assert mine["cost"]["parameters"] < asff["cost"]["parameters"]
    assert 0 < mine["cost"]["gflops"] < asff["cost"]["gflops"]
    assert asff["cost"]["latency_ms"] > 0
    first = Path("out/cells/asff/seed-0")
    results = json.loads((first / "results.json").read_text())
    assert asff["figures"]["ap"]["by_seed"] == {"0": results["ap"]}

    # finished runs are left alone; one that fails is told, and the table comes all the same
    shutil.rmtree("out/cells/mine")
    before = (first / "last.ckpt").stat().st_mtime_ns
    failing = (sys.executable, "-S", "-c", "import sys; print('pyrafuse: out of luck'); sys.exit(2)")
    run_all = comparing.run_all
    monkeypatch.setattr(comparing, "run_all", lambda *a, **k: run_all(*a, **{**k, "program": failing}))
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 runs are finished already" in err
    assert "- mine on cells, seed 0: out of luck; see " in out
    assert (first / "last.ckpt").stat().st_mtime_ns == before

    assert main([*argv, "--epochs", "2"]) == 2
    assert "holds another comparison: variants.asff.run.epochs is 1 there and 2 here" in capsys.readouterr().err
