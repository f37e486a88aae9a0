"""Exported detectors in a virtual environment of what `pip install "pyrafuse[runtime]"` brings, and no more."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrafuse.base.images.reading import read_image
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.data.formats.layout import read_split
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.evaluation.coco import to_coco_results
from pyrafuse.export.exporting import export
from pyrafuse.models.detector import Detector
from pyrafuse.models.evaluating import detect_all
from pyrafuse.models.factory import create_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of such an environment; the package is installed as its users install it."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[runtime]"], check=True)
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of the network's own size, so that none is resized, and exported files beside them."""
    folder = tmp_path_factory.mktemp("files")
    write_shapes(folder / "data", num_train=1, num_val=5, size=64)
    found = create_detector()
    images = [read_image(path) for path in sorted((folder / "data" / "images").iterdir())]
    export(found, folder / "image.onnx", size=64, images=images)
    export(found, folder / "rows.xml", input="fitted", output="rows", size=64, static=True, batch=2, images=images)
    return folder


def create_detector() -> Detector:
    torch.manual_seed(0)
    made = create_model("retinanet", backbone="mobilenet_v2", num_classes=5, head={"num_convs": 1}).eval()
    torch.nn.init.normal_(made.head.classes.weight, std=60)  # scores of every height
    names = ("circle", "square", "triangle", "star", "cross")
    made.card = replace(made.card, names=names, preprocessing=Preprocessing(size=(64, 64)))
    return made


def call(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [python, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_environment_has_no_torch(python, folder):
    assert re.search(r"No module named '?torch", call(python, folder, "torch").stderr)
    done = call(python, folder, "pyrafuse", "train", "data")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert 'pip install "pyrafuse[train]"' in done.stderr


@pytest.mark.parametrize("file", ["image.onnx", "rows.xml"])
def test_predict_finds_what_the_detector_finds(python, folder, file):
    done = call(
        python, folder, "pyrafuse", "predict", file, "data/images", "--output", f"out-{file}", "--score", "0.2",
        "--formats", "image,json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = json.loads((folder / f"out-{file}" / "predictions.json").read_text())["images"]
    expected = list(create_detector().predict(folder / "data" / "images", score=0.2))
    assert len(images) == len(expected) == 6
    assert sum(map(len, expected)) > 20
    for image, found in zip(images, expected, strict=True):
        levels = file != "rows.xml"  # which tells none
        # 0.001 of score counts as 0.1 px
        ours = [(o["label"], o["level"] * levels, o["score"] * 100, *o["box_xyxy"]) for o in image["objects"]]
        theirs = [(d.label, d.level * levels, d.score * 100, *d.box) for d in found]
        assert len(ours) == len(theirs)
        if ours:  # in the same order, but for equal scores
            distances = np.abs(np.array(ours)[:, None] - np.array(theirs)).max(axis=2)
            assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 0.1
    assert len(list((folder / f"out-{file}" / "images").iterdir())) == 6


def test_evaluate_finds_what_the_detector_finds(python, folder):
    done = call(python, folder, "pyrafuse", "evaluate", "image.onnx", "data", "--output", "evaluation", "--batch", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("5 images of data (val), 5 classes, 64 px, on cpu")
    assert (folder / "evaluation" / "report.html").is_file()
    evaluator = detect_all(create_detector(), read_split(folder / "data", "val").data, workers=0)
    ours = json.loads((folder / "evaluation" / "coco_results.json").read_text())
    theirs = json.loads(to_coco_results(evaluator))
    assert len(ours) == len(theirs) > 100
    assert [r["image_id"] for r in ours] == [r["image_id"] for r in theirs]
    np.testing.assert_allclose([r["score"] for r in ours], [r["score"] for r in theirs], atol=1e-3)
    result = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert result["ap"] == pytest.approx(evaluator.compute().ap, abs=1e-3)
