"""A card cannot name files to open nor weights to fetch, however deep it does."""

import os
import socket
from dataclasses import replace
from typing import Any

import pytest
import torch

from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.importers.loading import load
from pyrafuse.models.card import CARD_KEY
from pyrafuse.models.checkpoint import card_from_dict, save
from pyrafuse.models.factory import create_model
from pyrafuse.necks.graph_text import embed_graphs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("cards") / "a.ckpt"
    detector = create_model("yolov3_small", num_classes=1, backbone_options={"width": 0.25})
    detector.card = replace(detector.card, names=("a",), category_ids=(0,))
    save(detector, path)
    return torch.load(path, weights_only=True)


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A pipe that nobody writes to: whoever opens it waits for ever; and a network that is none."""
    pipe = tmp_path / "trap.yaml"
    os.mkfifo(pipe)

    def refuse(*_, **__):
        raise AssertionError("something was opened")

    before = os.open

    def open_(path, *args, **more):
        assert os.fspath(path) != str(pipe), "the pipe was opened"
        return before(path, *args, **more)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("pyrafuse.backbones.weights.read_tensors", refuse)
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    monkeypatch.setattr(os, "open", open_)
    return str(pipe)


def with_card(saved, tmp_path, **changes):
    card = {**saved[CARD_KEY]["card"], **changes}
    torch.save({**saved, CARD_KEY: {"card": card}}, tmp_path / "b.ckpt")
    return tmp_path / "b.ckpt"


@pytest.mark.parametrize("place", ["options", "defaults"])
@pytest.mark.parametrize("option", [{"weights": "{trap}"}, {"weights": "torchvision/resnet18"}, {"weights": "timm/x"}])
def test_weights_are_left_out(saved, tmp_path, trap, place, option):
    option = {key: value.format(trap=trap) for key, value in option.items()}
    before = saved[CARD_KEY]["card"]
    backbone = {**before["options"]["backbone_options"], **option}
    detector = load(with_card(saved, tmp_path, **{place: {**before[place], "backbone_options": backbone}}))
    assert "weights" not in detector.card.options["backbone_options"]
    assert "weights" not in (detector.card.defaults or {}).get("backbone_options", {})


def test_weights_are_left_out_of_parts_within_parts(trap):
    card = {
        "model": "x",
        "options": {"backbone_options": {"backbone_options": {"weights": trap, "pretrained": True, "depth": 50}}},
        "defaults": {"a": [{"b": [{"weights": trap, "loss_weights": [1.0], "c": {"weights": [1.0, 0.5]}}]}]},
        "names": [],
        "category_ids": [],
        "preprocessing": {},
    }
    got = card_from_dict(card)
    assert got.options == {"backbone_options": {"backbone_options": {"depth": 50}}}
    assert got.defaults == {"a": ({"b": ({"loss_weights": (1.0,), "c": {"weights": (1.0, 0.5)}},)},)}


def test_timms_backbones_fetch_nothing(saved, tmp_path, trap):
    options = {"backbone": "timm/resnet18", "backbone_options": {"pretrained": True}, "num_classes": 1}
    with pytest.raises(CheckpointError, match="does not fit"):
        load(with_card(saved, tmp_path, options=options))


@pytest.mark.parametrize("place", ["options", "defaults"])
@pytest.mark.parametrize(
    "values", [{"neck": "{trap}"}, {"neck": ["bfp", "{trap}"]}, {"backbone_options": {"neck": "{trap}"}}]
)
def test_a_graphs_file_is_refused(saved, tmp_path, trap, place, values):
    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        return [fill(inner) for inner in value] if isinstance(value, list) else value.format(trap=trap)

    before = saved[CARD_KEY]["card"][place]
    with pytest.raises(CheckpointError, match=r"b\.ckpt: its card names the file '.*trap\.yaml'"):
        load(with_card(saved, tmp_path, **{place: {**before, **fill(values)}}))


def test_a_graphs_text_may_end_like_a_files_name(tmp_path):
    text = "channels: 8\nmerges:\n  P3: [C3]\n  P4: [C4]\n  P5: [C5]\noutputs: [P3, P4, P5]  # of a.yaml"
    detector = create_model("yolov3_small", num_classes=1, backbone_options={"width": 0.25}, neck=text)
    save(detector, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt").card.options["neck"] == text


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(30)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{BOMB}merges: *a30\n", "unfold to more than 1,000,000 values"),
        ("merges: &a [*a]\n", "an anchor within itself"),
    ],
)
def test_anchors_without_bounds(saved, tmp_path, text, said):
    assert embed_graphs(text) == text
    with pytest.raises(CheckpointError, match=said):
        load(with_card(saved, tmp_path, options={**saved[CARD_KEY]["card"]["options"], "neck": text}))


@pytest.mark.parametrize("value", [10**30, -1, float("nan"), "x", [], {"a": 1}, None, True, 10**12])
@pytest.mark.parametrize("option", ["width", "depth"])
def test_values_that_cannot_be(saved, tmp_path, option, value):
    options = {**saved[CARD_KEY]["card"]["options"], "backbone_options": {option: value}}
    with pytest.raises(PyrafuseError):
        load(with_card(saved, tmp_path, options=options))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"names": ["a", "b"]}, "2 names and 1 ids of classes"),
        ({"names": ["a", "b"], "category_ids": [1, 2]}, "names 2 classes, and its detector tells 1 apart"),
        ({"origin": 7}, "wrong kind: origin 7"),
        ({"preprocessing": {"size": [10**9, 64]}}, "wrong kind: preprocessing"),
        ({"preprocessing": {"pad_multiple": 10**9}}, "wrong kind: preprocessing"),
        ({"preprocessing": {"mean": [float("inf")] * 3}}, "wrong kind: preprocessing"),
    ],
)
def test_descriptions_that_cannot_be(saved, tmp_path, card, said):
    with pytest.raises(CheckpointError, match=said):
        load(with_card(saved, tmp_path, **card))
