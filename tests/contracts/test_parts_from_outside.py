"""The examples of the contributors' page, each in a file of its own: named with --import they train and evaluate."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyrafuse.assigners.registry import ASSIGNERS
from pyrafuse.backbones.registry import BACKBONES
from pyrafuse.cli.main import main
from pyrafuse.core.assignment import BACKGROUND
from pyrafuse.core.predictions import DensePredictions
from pyrafuse.core.targets import Targets
from pyrafuse.heads.dense import grid_of
from pyrafuse.heads.registry import HEADS
from pyrafuse.importers.loading import load
from pyrafuse.losses.registry import LOSSES, is_of_boxes
from pyrafuse.models.factory import create_model
from pyrafuse.training.loggers.registry import LOGGERS

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
NAMES = ("one_conv", "three_convs", "nearest", "corners", "lines")
DATA = "shapes:train=4,val=2,size=64"


@pytest.fixture
def files(tmp_path, monkeypatch) -> dict[str, Path]:
    """A file for each example; what they register is forgotten afterwards."""
    for registry in (HEADS, BACKBONES, ASSIGNERS, LOSSES, LOGGERS):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    written = {}
    for name in NAMES:
        (block,) = (text for text in blocks if f'.register("{name}"' in text)
        written[name] = tmp_path / f"{name}_of_the_page.py"
        written[name].write_text(block)
    return written


@pytest.fixture
def registered(files) -> Callable[[str], None]:
    """Runs an example."""
    return lambda name: exec(compile(files[name].read_text(), name, "exec"), {"__name__": name})


def test_all_five_train_and_evaluate_by_their_names(files, tmp_path, capsys):
    imports = [word for file in files.values() for word in ("--import", str(file))]
    out = tmp_path / "run"
    training = ["train", DATA, "--size", "64", "--epochs", "1", "--batch", "4", "--output", str(out), "--device", "cpu"]
    training += ["--loggers", "lines"]
    parts = ["--model", "one_conv", "--model.backbone", "three_convs", "--model.neck", "identity"]
    inner = [
        "--model.options.criterion.assigner=nearest",
        "--model.options.criterion.box_loss={name: corners, side: 32}",
    ]
    assert main([*imports, *training, *parts, *inner]) == 0
    detector = load(out / "best.ckpt")
    spec = detector.card.spec
    assert (spec.head.name, spec.backbone.name) == ("one_conv", "three_convs")
    # it shares its convolution over levels of 16 and 32 channels
    assert [neck.name for neck in spec.necks] == ["identity", "projection"]
    assert spec.criterion.options["box_loss"].to_plain() == {"name": "corners", "side": 32}
    assert spec.criterion.options["assigner"].to_plain() == {"name": "nearest", "reach": 1e6}
    logged = [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged if "val/ap" in row] == [1]
    capsys.readouterr()
    assert main(["evaluate", str(out / "best.ckpt"), DATA]) == 0
    assert "AP" in capsys.readouterr().out


def test_a_head_gets_what_learns_and_decodes_for_its_kind(registered):
    registered("one_conv")
    detector = create_model(head="one_conv", backbone="resnet18", neck="bifpn", num_classes=3)
    spec = detector.card.spec
    assert (spec.criterion.name, spec.decode.name, spec.coder.name) == ("dense", "dense", "delta")
    assert spec.criterion.options["class_loss"].name == "focal"
    (found,) = detector.eval().detect(torch.zeros(1, 3, 64, 64))
    assert len(found) <= 100


def test_the_nearest_anchor_answers(registered):
    registered("nearest")
    pyramid = (torch.zeros(1, 1, 2, 2),)
    grid = grid_of(pyramid, (8,), [torch.tensor([[8.0, 8.0]])])
    predictions = DensePredictions(torch.zeros(1, 4, 1), torch.zeros(1, 4, 4), None, grid)
    boxes = torch.tensor([[[9.0, 9, 15, 15], [0, 0, 4, 4]]])
    targets = Targets.pad(boxes, torch.tensor([[0, 0]]))
    assignment = ASSIGNERS.build("nearest")(predictions, targets)
    assert assignment.objects.tolist() == [[1, BACKGROUND, BACKGROUND, 0]]


def test_the_loss_compares_boxes_in_pixels(registered):
    registered("corners")
    loss = LOSSES.build({"name": "corners", "side": 2.0})
    assert is_of_boxes(loss)
    assert loss(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 8, 4]])).tolist() == [0.5]
