"""A class whose name gives orders to a terminal, through the output of every command that tells of classes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.cli.main import main
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model

EVIL = "evil\x1b[2J\x1b]0;t\x07\nline\u202e\u2066<script>alert(1)</script>"
OTHER = "=cmd|' /C calc'!A0"
ORDERS = ("\x1b", "\x07", "\u202e", "\u2066", "\nline")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Images with objects of both classes, their annotations, and a detector of them."""
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / "data" / split).mkdir(parents=True)
        images, objects = [], []
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / "data" / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{split}/{number}.png", "width": 64, "height": 64})
            objects += [
                {"id": 2 * number + k, "image_id": number, "category_id": 1 + k, "bbox": [4 + 9 * k, 8, 30, 28],
                 "area": 840, "iscrowd": 0}
                for k in range(2)
            ]  # fmt: skip
        classes = [{"id": 1, "name": EVIL}, {"id": 2, "name": OTHER}]
        content = {"images": images, "annotations": objects, "categories": classes}
        (root / "data" / f"instances_{split}.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    detector = create_model(
        "yolov3_asff",
        num_classes=2,
        backbone={"width": 0.25, "depths": [1, 1, 1, 1, 1]},
        necks={"yolo_fpn": {"width": 0.125}, "asff": {"out_channels": [16, 24, 32]}},
        head={"adaption": False},
    )
    detector.card = replace(detector.card, names=(EVIL, OTHER), preprocessing=Preprocessing(size=(64, 64)))
    save(detector, root / "a.ckpt")
    return root


COMMANDS = [
    "data check data",
    "data convert data OUT --to csv",
    "data split data OUT --val 0.5 --near-duplicates",
    "predict a.ckpt data/val --output OUT --device cpu --classes nothing",
    *(
        pytest.param(words, marks=pytest.mark.slow)
        for words in (
            "data check data --model a.ckpt --page page.html --device cpu",
            "data show data --output page.html",
            "data merge data data --output OUT",
            "train data --model a.ckpt --batch 4 --epochs 1 --device cpu --output OUT",
            "evaluate a.ckpt data --output OUT --device cpu",
            "diff a.ckpt a.ckpt data --page page.html --device cpu",
            "predict a.ckpt data/val --output OUT --device cpu --score 0.01 --crop --formats json,coco,yolo",
            "explain a.ckpt data/val/0.png --output OUT --device cpu",
        )
    ),
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_name_gives_no_orders(words, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    places = {"OUT": str(tmp_path / "out"), "page.html": str(tmp_path / "page.html")}
    status = main([places.get(word, word) for word in words.split()])
    out, err = capsys.readouterr()
    assert status == (2 if "nothing" in words else 0)
    for order in ORDERS:
        assert order not in out + err
    assert "Traceback" not in err
    for path in tmp_path.rglob("*.html"):
        assert "<script>alert" not in path.read_text()
