"""The path of somebody with images and a deadline: look at the data, train, see why it fails, export, serve."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import write_shapes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def evening(tmp_path_factory):
    """The folder of a person, after all commands but the last, and what each printed."""
    folder, before = tmp_path_factory.mktemp("evening"), Path.cwd()
    write_shapes(folder / "my_data", num_train=24, num_val=6, size=64)
    os.chdir(folder)
    try:
        for words in (
            "data check my_data --page check.html --json check.json",
            "train my_data --advice --size 64 --epochs 3 --device cpu --output runs/mine",
            "evaluate runs/mine/best.ckpt --page why.html --output figures --device cpu",
            "export runs/mine/best.ckpt -o mine.onnx",
            "evaluate mine.onnx my_data --output of_file",
            "diff runs/mine/best.ckpt mine.onnx my_data --page differences.html --device cpu",
            "predict mine.onnx my_data/images --score 0.001 --output found",
        ):
            assert main(words.split()) == 0, words
        yield folder
    finally:
        os.chdir(before)


def test_the_data_are_checked_and_advice_is_given(evening):
    told = json.loads((evening / "check.json").read_text())
    assert told["advice"]
    assert "http-equiv" not in (evening / "check.html").read_text()


def test_advice_is_applied_where_nothing_was_said_by_hand(evening):
    recipe = (evening / "runs/mine/recipe.yaml").read_text()
    assert re.search(r"^  size: 64$", recipe, re.MULTILINE)
    assert re.search(r"^  epochs: 3$", recipe, re.MULTILINE)
    assert "mobilenet_v2" in recipe


def test_the_page_says_why_it_fails(evening):
    figures = json.loads((evening / "figures/evaluation.json").read_text())
    assert "diagnosis" in figures
    page = (evening / "why.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []


def test_the_exported_file_is_the_detector(evening):
    ap, of_file = (
        json.loads((evening / place / "evaluation.json").read_text())["ap"] for place in ("figures", "of_file")
    )
    assert of_file == pytest.approx(ap, abs=2e-3)


def test_a_colleague_asks_the_server(evening):
    words = [sys.executable, "-m", "pyrafuse", "serve", "mine.onnx", "--port", "0", "--score", "0.001"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(words, cwd=evening, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline()).group()
            expected = json.loads((evening / "found/predictions.json").read_text())["images"][:3]
            assert all(image["objects"] for image in expected)
            for image in expected:
                picture = (evening / image["source"]).read_bytes()
                request = urllib.request.Request(f"{address}/predict", picture, {"Content-Type": "image/jpeg"})
                with urllib.request.urlopen(request, timeout=60) as response:
                    answer = json.load(response)
                assert len(answer["objects"]) == len(image["objects"])
                best, of_file = answer["objects"][0], image["objects"][0]
                assert best["name"] == of_file["name"]
                assert best["score"] == pytest.approx(of_file["score"], abs=1e-4)
                assert best["box_xyxy"] == pytest.approx(of_file["box_xyxy"], abs=0.05)
        finally:
            server.terminate()
        assert server.wait(30) == 0
