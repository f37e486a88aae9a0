"""Ctrl-C in the midst of many images: one line says what was kept, and every file is whole."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.explain import writing as explained
from pyrafuse.inference.writers import registry as predicted
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model

NUM_IMAGES = 2000  # far more than are looked at between the first file and the signal
LONGEST_S = 240

# whoever started the tests may have it ignored, as a shell does for what runs behind it
CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pyrafuse.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    detector = create_model(
        "yolov3_asff",
        num_classes=1,
        backbone={"width": 0.25, "depths": [1, 1, 1, 1, 1]},
        necks={"yolo_fpn": {"width": 0.125}, "asff": {"out_channels": [16, 24, 32]}},
        head={"adaption": False},
    )
    detector.card = replace(detector.card, names=("cell",), preprocessing=Preprocessing(size=(64, 64)))
    path = tmp_path_factory.mktemp("model") / "a.ckpt"
    save(detector, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Very many names of one image, and their annotations."""
    root = tmp_path_factory.mktemp("data") / "images"
    root.mkdir()
    first = root / "0000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(first)
    for i in range(1, NUM_IMAGES):
        (root / f"{i:04}.png").hardlink_to(first)
    images = [{"id": i, "file_name": f"{i:04}.png", "width": 64, "height": 48} for i in range(NUM_IMAGES)]
    objects = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0}]
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cell"}]}
    (root / "val.json").write_text(json.dumps(content))
    return root


def interrupt(argv: list[str], output: Path, is_ready: Callable[[str], bool]) -> tuple[int, str]:
    """Run a command, press Ctrl-C when ``is_ready`` of its standard error; its status and the last line there."""
    command = [sys.executable, "-c", CHILD, *argv, "--output", str(output), "--device", "cpu"]
    stderr = output.with_name("stderr")
    with stderr.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # other tests run beside these
        )
        try:
            end = time.monotonic() + LONGEST_S
            while process.poll() is None and time.monotonic() < end and not is_ready(stderr.read_text()):
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)  # a terminal tells the processes that load as well
            status = process.wait(LONGEST_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    text = stderr.read_text()
    assert "Traceback" not in text
    return status, text.splitlines()[-1]


def check_files(output: Path) -> list[Path]:
    """The files below ``output``; each must be whole, and none a temporary one."""
    files = [path for path in output.rglob("*") if path.is_file()]
    for path in files:
        assert not path.name.startswith(".") or path.name in (predicted.RECORD_FILE, explained.RECORD_FILE)
        if path.suffix in {".jpg", ".png"}:
            with Image.open(path) as image:
                image.load()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
    return files


def test_predict(checkpoint, folder, tmp_path):
    output = tmp_path / "out"
    argv = ["predict", str(checkpoint), str(folder), "--score", "0.1", "--formats", "image,json,coco,yolo"]
    status, line = interrupt(argv, output, lambda _: len(list(output.glob("images/*.jpg"))) > 1)
    told = re.fullmatch(rf"pyrafuse: interrupted; {re.escape(str(output))} holds the first (\d+) of 2000", line)
    assert status == 130
    assert told is not None, line
    count = int(told[1])
    assert 0 < count < NUM_IMAGES
    check_files(output)
    names = [f"{i:04}" for i in range(count)]
    images = json.loads((output / "predictions.json").read_text())["images"]
    assert [Path(image["source"]).stem for image in images] == names
    for folder_of in ("images", "labels"):
        assert sorted(path.stem for path in (output / folder_of).iterdir()) == names


def test_explain(checkpoint, folder, tmp_path):
    output = tmp_path / "out"
    argv = ["explain", str(checkpoint), str(folder), "--score", "0.9"]
    status, line = interrupt(argv, output, lambda _: len(list(output.glob("*.json"))) > 1)
    told = re.fullmatch(
        rf"pyrafuse: interrupted; {re.escape(str(output))}/report\.html tells of the first (\d+) of 2000", line
    )
    assert status == 130
    assert told is not None, line
    assert len([path for path in check_files(output) if path.suffix == ".json"]) >= int(told[1]) > 0


def test_evaluate_whose_workers_are_about_to_start(checkpoint, folder, tmp_path):
    output = tmp_path / "out"
    argv = ["evaluate", str(checkpoint), str(folder / "val.json"), "--workers", "2", "--batch", "1"]
    status, line = interrupt(argv, output, lambda text: "2000 images of" in text)
    assert status == 130
    assert line.startswith("pyrafuse: interrupted")
    assert not output.exists()
