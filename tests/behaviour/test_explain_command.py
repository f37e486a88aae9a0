"""`pyrafuse explain` from a checkpoint on disk to the page."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.explain.fusion import explain_image
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model


def write_checkpoint(path, name):
    torch.manual_seed(0)
    detector = create_model(name, num_classes=3)
    detector.card = replace(
        detector.card, names=("fish", "shark", "ray"), preprocessing=Preprocessing(size=(96, 96), fit="letterbox")
    )
    save(detector, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "asff.ckpt", "yolov3_asff_small")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (60, 120, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_folder(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "out"
    argv = ["explain", str(checkpoint), str(photos), "--output", str(output), "--score", "0", "--limit", "1"]
    assert main([*argv, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["1 image explained, 0 could not be read", str(output / "report.html")]
    assert "<h1>Which levels contributed to each detection</h1>" in (output / "report.html").read_text()
    expected = explain_image(load(checkpoint), photos / "a.png", score=0)
    with np.load(output / "a_fusion.npz") as stored:
        np.testing.assert_allclose(stored["weights_stride16"], expected.fusions[1].weights, rtol=1e-5)
    assert len(json.loads((output / "a_fusion.json").read_text())["objects"]) == len(expected.detections)
    assert not (output / "b_fusion.npz").exists()


def test_a_faulty_image_is_told_and_passed_over(checkpoint, photos, tmp_path, capsys):
    (tmp_path / "x.png").write_bytes(b"")
    argv = ["explain", str(checkpoint), str(photos / "a.png"), str(tmp_path / "x.png"), "--device", "cpu"]
    assert main([*argv, "--output", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("1 image explained, 1 could not be read")
    assert "x.png is empty" in err
    assert "x.png is empty" in (tmp_path / "out" / "report.html").read_text()


def test_a_neck_without_weights(photos, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "plain.ckpt", "yolov3_small")
    argv = ["explain", str(checkpoint), str(photos / "a.png"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(argv) == 0
    with np.load(tmp_path / "out" / "a_fusion.npz") as stored:
        assert stored["fused_stride8"].shape == (6, 12)
        assert not any(name.startswith("weights") for name in stored)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--score", "2"], "score must be in 0..1, got 2.0"),
        (["--limit", "0"], "limit must be 1 or more, got 0"),
        (["--scores", "0.1"], "did you mean --score"),
    ],
)
def test_a_wrong_option(checkpoint, photos, tmp_path, capsys, option, message):
    assert main(["explain", str(checkpoint), str(photos), "--output", str(tmp_path / "out"), *option]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_gradients_of_labelled_images(checkpoint, tmp_path, capsys):
    data = write_shapes(tmp_path / "shapes", num_train=1, num_val=2, size=96)
    output = tmp_path / "out"
    argv = ["explain", "--gradients", str(checkpoint), str(data), "--output", str(output), "--device", "cpu"]
    assert main(argv) == 2
    assert "does not know circle, square, triangle, star, cross; it knows fish, shark, ray" in capsys.readouterr().err
    labels = json.loads((data / "instances_val.json").read_text())
    labels["categories"] = [{"id": i, "name": name} for i, name in enumerate(("fish", "shark", "ray"))]
    for row in labels["annotations"]:
        row["category_id"] %= 3
    (data / "instances_val.json").write_text(json.dumps(labels))
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["network", "weights", "sum", "concat"]
    assert lines[-1] == str(output / "report.html")
    assert json.loads((output / "gradients.json").read_text())["images"] == 2
    assert main([*argv, "--split", "test"]) == 2
    assert main([*argv[:3], str(data), str(data), "--output", str(output)]) == 2
    assert "--gradients takes one data set with labels, got 2" in capsys.readouterr().err
