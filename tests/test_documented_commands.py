"""The commands of the pages run on a tiny data set: each page in a folder of its own, from top to bottom."""

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from PIL import Image

from pyrafuse.base.typed_values import create
from pyrafuse.cli.main import main
from pyrafuse.data.formats.shapes import write_shapes
from pyrafuse.training.settings import Recipe
from pyrafuse.training.starting import settle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
DOORS = ("tutorial", "how_to", "reference", "explanation")
PAGES = [ROOT / "README.md", *(page for door in DOORS for page in sorted((ROOT / "docs" / door).glob("*.md")))]
NOT_RUN = {
    r"^pyrafuse (search|bench|compare) ": "takes minutes, and has tests of its own",
    r"^pyrafuse (serve|app) ": "runs until it is stopped, and has tests of its own",
    r"^pyrafuse (import|evaluate-classifier) (?!--list)": "reads a file of another project",
    r"(theirs|epoch_12|darknet53|-c2378eb2)\.pth|asff\.ckpt": "reads a file of another project",
    r"://|video\.mp4|timm/|--format web|--loggers tensorboard,wandb": "needs a network, a video or another library",
    r"--classes cat,dog|--boxes shares": "is for other data",
    r"--device 0,1": "needs two GPUs",
    r"--precision int8": "needs a detector that finds something",
}
"""Commands that tests/test_documentation.py parses alone, and why."""
PYTHON = ("README", "detectors", "explaining", "exporting", "graphs")
"""Pages whose Python runs after their commands; that of docs/how_to/python.md runs in tests/test_documentation.py."""
LARGE = re.compile(r"^pyrafuse train (coco/|photos)|--recipe yolov3|--model(\.name)? (?!runs|yolov3_small|ssdlite)\w")
"""Trainings whose detector is described and built without weights, not trained."""
SHORT = "--size 64 --epochs 1 --batch 2 --data.workers 0 --device cpu"
SMALLER = {
    "train": f"{SHORT} --data.sizes [64,96]",
    **dict.fromkeys(("predict", "evaluate", "explain", "diff"), "--device cpu"),
}
"""Options that make a command short, by its first word."""


def blocks_of(page: Path, language: str = "") -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for of, text in blocks if of == language]


def lines_of(page: Path) -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks_of(page) for line in block.splitlines()]
    return [line for line in lines if line.startswith("pyrafuse ")]


def is_run(line: str) -> bool:
    return not any(re.search(pattern, line) for pattern in NOT_RUN)


LINES = {page: [line for line in lines_of(page) if is_run(line)] for page in PAGES}


def test_most_commands_run_and_no_exception_is_left_over():
    every = [line for page in PAGES for line in lines_of(page)]
    assert [pattern for pattern in NOT_RUN if not any(re.search(pattern, line) for line in every)] == []
    assert sum(map(len, LINES.values())) > 0.6 * len(every)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """The folder that the pages speak of: data, images, a training, detections, weights of others."""
    place = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        write_shapes("my_data", num_train=6, num_val=4, size=64)
        write_shapes("more_data", num_train=2, num_val=2, size=64, seed=1)
        shutil.copyfile("my_data/instances_val.json", "my_data/instances_test.json")
        pictures = sorted(Path("my_data").rglob("*.png")) or sorted(Path("my_data").rglob("*.jpg"))
        for folder in ("images", "aerial"):
            Path(folder).mkdir()
            for picture in pictures[:2]:
                shutil.copy(picture, folder)
        assert main(["train", "my_data", "--output", "runs/mine", *shlex.split(SHORT)]) == 0
        for other in ("first", "second"):
            shutil.copytree("runs/mine", f"runs/{other}")
        shutil.copy("runs/mine/best.ckpt", "best.ckpt")
        Image.open(pictures[0]).convert("RGB").save("photo.jpg")
        assert main(["evaluate", "best.ckpt", "my_data", "--output", "found", "--device", "cpu"]) == 0
        shutil.copy("found/coco_results.json", "detections.json")
        torch.save(torchvision.models.mobilenet_v2().state_dict(), "mobilenet_v2.pth")
        ssd = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        torch.save(ssd.state_dict(), "ssdlite320_mobilenet_v3_large_coco-a79551df.pth")
        assert main(["draw", "bifpn", "-o", "mine.yaml"]) == 0
    return place


def describe(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Find every setting of a training, and build its detector without weights."""
    capsys.readouterr()
    assert main([*shlex.split(line)[1:], "--print_config"]) == 0
    recipe = create(Recipe, yaml.safe_load(capsys.readouterr().out))
    settled, _ = settle(replace(recipe, model=replace(recipe.model, backbone_weights=None)))
    assert {"backbone", "necks", "head"} <= set(settled.model.spec)


@pytest.mark.parametrize("page", [p for p, lines in LINES.items() if lines], ids=lambda page: page.stem)
def test_commands_of_a_page_run(page, prepared, tmp_path, monkeypatch, capsys):
    place = tmp_path / "here"
    shutil.copytree(prepared, place)
    monkeypatch.chdir(place)
    if page.stem == "detectors":  # here mine.yaml is a whole detector
        capsys.readouterr()
        assert main(["models", "retinanet", "--spec"]) == 0
        Path("mine.yaml").write_text(capsys.readouterr().out)
    for line in LINES[page]:
        words = shlex.split(line)[1:]
        if LARGE.search(line):
            describe(line, capsys)
            continue
        if words[0] == "train" and "--output" in words:
            shutil.rmtree(words[words.index("--output") + 1], ignore_errors=True)  # of the folder that was prepared
        shorter = "" if "--results" in words else SMALLER.get(words[0], "")
        assert main([*words, *shlex.split(shorter)]) == 0, line
    namespace: dict[str, Any] = {}
    for block in blocks_of(page, "python") if page.stem in PYTHON else ():
        block = block.replace("epochs=20", "epochs=1, size=64, batch=2")
        exec(compile(block, page.name, "exec"), namespace)  # what the page says to type
    if page.stem == "README":
        assert namespace["found"].source.startswith("images/")
        assert namespace["result"].best.is_file()
    if page.stem == "explaining":
        assert Path("explanation/photo_fusion.json").is_file()
