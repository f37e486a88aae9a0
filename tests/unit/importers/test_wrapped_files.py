"""Detectors of others as training scripts save them: wrapped, averaged, beside settings of their own classes."""

import argparse
from collections import OrderedDict
from pathlib import PurePosixPath

import pytest
import torch
import torchvision

from pyrafuse.base.errors import CheckpointError
from pyrafuse.cli.main import main
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save


@pytest.fixture(scope="module")
def original():
    return torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )


@pytest.fixture(scope="module")
def live(original):
    return original.state_dict()


@pytest.fixture(scope="module")
def mean(live):
    return OrderedDict((key, value + 1 if value.is_floating_point() else value) for key, value in live.items())


def renamed(state, prefix):
    return OrderedDict((f"{prefix}{key}", value) for key, value in state.items())


KEY = "backbone.features.0.0.0.weight"


def first(detector):
    return next(p for name, p in detector.named_parameters() if name.startswith("backbone") and p.ndim == 4)


ARGS = argparse.Namespace(lr=0.1, output_dir=PurePosixPath("/tmp/x"), model=argparse.Namespace(name="ssdlite"))


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "ssd.", "net.ssd."],
)
def test_wrapped_in_any_order(tmp_path, live, prefix):
    torch.save({"model": renamed(live, prefix), "args": ARGS, "epoch": 3}, tmp_path / "a.pth")
    assert torch.equal(first(load(tmp_path / "a.pth")), live[KEY])


def test_a_lightning_module_beside_its_loss(tmp_path, live):
    content = {"state_dict": {**renamed(live, "model."), "loss.weight": torch.ones(3)}, "hyper_parameters": ARGS}
    torch.save(content, tmp_path / "a.ckpt")
    assert torch.equal(first(load(tmp_path / "a.ckpt")), live[KEY])


def test_a_whole_module(tmp_path, original, live):
    torch.save({"model": original, "args": ARGS}, tmp_path / "a.pth")
    assert torch.equal(first(load(tmp_path / "a.pth")), live[KEY])


def test_the_command_says_that_averaged_weights_are_taken(tmp_path, live, mean, capsys):
    content = {"model": live, "model_ema": {**renamed(mean, "module."), "n_averaged": torch.tensor(9)}, "args": ARGS}
    torch.save(content, tmp_path / "a.pth")
    assert main(["import", str(tmp_path / "a.pth"), "-o", str(tmp_path / "b.ckpt")]) == 0
    said = "weights    averaged weights (EMA) under model_ema are taken instead of the live ones under model\n"
    assert said in capsys.readouterr().out
    assert torch.equal(first(load(tmp_path / "b.ckpt")), mean[KEY])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model._orig_mod."])
def test_ours_are_wrapped_likewise(tmp_path, live, prefix):
    torch.save(live, tmp_path / "a.pth")
    detector = load(tmp_path / "a.pth")
    save(detector, tmp_path / "b.ckpt")
    content = torch.load(tmp_path / "b.ckpt", weights_only=True)
    for state in (renamed(content["state_dict"], prefix), renamed(detector.state_dict(), f"detector.{prefix}")):
        torch.save({**content, "state_dict": state}, tmp_path / "c.ckpt")
        again = load(tmp_path / "c.ckpt").state_dict()
        assert all(torch.equal(value, again[key]) for key, value in detector.state_dict().items())


def test_nothing_known_is_still_refused(tmp_path):
    torch.save({"a.b.c.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="of no layout that is known here"):
        load(tmp_path / "a.pth")
