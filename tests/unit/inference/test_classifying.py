"""Counting right answers, and the command that does."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.cli.main import main
from pyrafuse.data.augment.cropping import CenterCrop
from pyrafuse.data.reading.class_folders import LabelledImage
from pyrafuse.inference.classifying import Accuracy, evaluate_classifier, rank_of_truth
from pyrafuse.models.classifier import CLASSIFIERS, Classifier, create_classifier


class Redness(nn.Module):
    """Logits of ten classes: class k is the likelier, the nearer the mean red is to 25 k."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        red = images[:, 0].mean((1, 2)) * 255
        return -(red[:, None] - 25 * torch.arange(10)).abs() * self.scale


@pytest.fixture
def classifier():
    crop = CenterCrop(size_px=8, resize_px=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Classifier(Redness(), nn.Identity(), preprocessing=crop, num_classes=10)


@pytest.fixture
def images(tmp_path):
    """Files of reds 0, 25, 50 ... with these true classes, and one that is none."""
    truths = [0, 1, 3, 8, 4, 0]  # ranks 0, 0, 1 or 2, 4 or more, 0, 4 or more
    found = []
    for k, truth in enumerate(truths):
        Image.fromarray(np.full((9, 12, 3), (25 * k, 0, 0), np.uint8)).save(tmp_path / f"{k}.png")
        found.append(LabelledImage(tmp_path / f"{k}.png", truth))
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [*found[:2], LabelledImage(tmp_path / "bad.png", 1), *found[2:]]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_counts(classifier, images, batch_size):
    found = evaluate_classifier(classifier, images, batch_size=batch_size, workers=2)
    assert (found.num_images, found.num_top1) == (6, 3)
    assert found.num_top5 == 4
    assert found.top1 == 0.5
    assert found.top5 == pytest.approx(4 / 6)
    (failure,) = found.failures
    assert "bad.png" in failure


def test_nothing_can_be_read(classifier, images):
    found = evaluate_classifier(classifier, [images[2]])
    assert found == Accuracy(0, 0, 0, found.failures)
    assert math.isnan(found.top1)
    assert math.isnan(found.top5)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"workers": 0}])
def test_bad_numbers(classifier, images, options):
    with pytest.raises(PyrafuseError, match="must be 1 or more"):
        evaluate_classifier(classifier, images, **options)


def test_ranks():
    logits = torch.tensor([[3.0, 1, 2], [3, 1, 2], [5, 5, 5], [1, float("nan"), 0]])
    assert rank_of_truth(logits, torch.tensor([0, 1, 2, 0])).tolist() == [0, 2, 2, 3]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("n01440764/a.jpg", "n01443537/b.jpg", "n01443537/c.jpg"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / "set" / name)
    return tmp_path / "set"


def test_command(folder, tmp_path, capsys):
    classifier = create_classifier("resnet18")
    nn.init.zeros_(classifier.head.fc.weight)
    classifier.head.fc.bias.data = torch.eye(1000)[1]  # everything is a goldfish
    torch.save(
        {CLASSIFIERS["resnet18"].name(k): v for k, v in classifier.state_dict().items()}, tmp_path / "weights.pth"
    )
    words = ["evaluate-classifier", "resnet18", str(folder), "--weights", str(tmp_path / "weights.pth"), "--size", "32"]
    assert main([*words, "--workers", "1", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "3 images of" in err
    assert "untrained" not in err
    assert "shorter side to 36 px (bilinear), middle 32 x 32 px" in out
    assert "images  3, 0 could not be read" in out
    assert "top-1   66.67 %" in out
    assert "top-5   100.00 %" in out

    (folder / "n01443537" / "c.jpg").write_bytes(b"\xff\xd8\xff no more")
    assert main([*words, "--workers", "1", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert "c.jpg" in err
    assert "images  2, 1 could not be read" in out
    assert "top-1   50.00 %" in out


def test_bad_words(folder, capsys):
    assert main(["evaluate-classifier", "dpn93", str(folder)]) == 2
    assert "unknown classifier 'dpn93'" in capsys.readouterr().err
    assert main(["evaluate-classifier", "dpn68", str(folder), "--size", "64", "--resize", "32"]) == 2
    assert "--size and --resize: a crop of 64 px does not fit into 32 px" in capsys.readouterr().err
