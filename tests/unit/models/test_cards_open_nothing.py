"""A card cannot name files to open nor weights to fetch, however deep it does."""

import os
import socket
from dataclasses import replace
from typing import Any

import pytest
import torch

from pyrafuse.base.card import CARD_KEY
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.parts import part
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import card_from_dict, save
from pyrafuse.models.factory import create_model
from pyrafuse.necks.graph_text import embed_graphs


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("cards") / "a.ckpt"
    detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25})
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


EARLIER = {
    "options": {"num_classes": 1, "backbone_options": {"width": 0.25}},
    "defaults": {"backbone": "mobilenet_v2", "neck": "fpn"},
}
WEIGHTS = [{"weights": "{trap}"}, {"weights": "torchvision/resnet18"}, {"weights": "timm/x"}, {"pretrained": True}]


def with_card(saved, tmp_path, **changes):
    """``saved`` with ``changes`` to its card, which is an earlier one where they are of its fields."""
    card = {**saved[CARD_KEY]["card"], **changes}
    if set(changes) & set(EARLIER):
        del card["spec"]
        card = {**EARLIER, **card}
    torch.save({**saved, CARD_KEY: {"card": card}}, tmp_path / "b.ckpt")
    return tmp_path / "b.ckpt"


def with_part(saved, tmp_path, field, part):
    """``saved`` with another part, or row of parts, in its card."""
    return with_card(saved, tmp_path, spec={**saved[CARD_KEY]["card"]["spec"], field: part})


def fill(value: Any, trap: str) -> Any:
    if isinstance(value, dict):
        return {key: fill(inner, trap) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, trap) for inner in value]
    return value.format(trap=trap) if isinstance(value, str) else value


@pytest.mark.parametrize("place", ["options", "defaults"])
@pytest.mark.parametrize("option", WEIGHTS)
def test_weights_are_left_out_of_earlier_cards(saved, tmp_path, trap, place, option):
    backbone = {"width": 0.25, **fill(option, trap)}
    detector = load(with_card(saved, tmp_path, **{place: {**EARLIER[place], "backbone_options": backbone}}))
    assert detector.card.spec.to_plain() == saved[CARD_KEY]["card"]["spec"]


@pytest.mark.parametrize("option", WEIGHTS)
def test_weights_are_no_options(saved, tmp_path, trap, option):
    before = saved[CARD_KEY]["card"]["spec"]["backbone"]
    with pytest.raises(
        CheckpointError, match=rf"b\.ckpt .*{next(iter(option))} says what the backbone mobilenet_v2 is fil"
    ):
        load(with_part(saved, tmp_path, "backbone", {**before, **fill(option, trap)}))


def test_weights_of_parts_within_parts_are_left_out(trap):
    inner = {"weights": trap, "pretrained": True, "width": 8, "strides": [4, 8, 16, 32]}
    card = {
        "model": "cascade_rcnn_rfp",
        "options": {"backbone_options": {"backbone": "resnet18", "backbone_options": inner}},
        "defaults": {"backbone_options": {"weights": trap, "pretrained": True}},
        "names": [],
        "category_ids": [],
        "preprocessing": {},
    }
    trunk = card_from_dict(card).spec.backbone.options["backbone"]
    assert trunk == part("resnet18", width=8, strides=(4, 8, 16, 32))


def test_timms_backbones_fetch_nothing(saved, tmp_path, trap):
    options = {"backbone": "timm/resnet18", "backbone_options": {"pretrained": True}, "num_classes": 1}
    with pytest.raises(CheckpointError, match="does not fit"):
        load(with_card(saved, tmp_path, options=options))
    with pytest.raises(CheckpointError, match="does not fit"):
        load(with_part(saved, tmp_path, "backbone", {"name": "timm/resnet18"}))


REFUSED = r"b\.ckpt: its card names the file '.*trap\.yaml'"


@pytest.mark.parametrize("place", ["options", "defaults"])
@pytest.mark.parametrize(
    "values", [{"neck": "{trap}"}, {"neck": ["bfp", "{trap}"]}, {"backbone_options": {"neck": "{trap}"}}]
)
def test_a_graphs_file_is_refused_in_earlier_cards(saved, tmp_path, trap, place, values):
    with pytest.raises(CheckpointError, match=REFUSED):
        load(with_card(saved, tmp_path, **{place: {**EARLIER[place], **fill(values, trap)}}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("necks", [{"name": "graph", "graph": "{trap}"}]),
        ("necks", [{"name": "bfp"}, {"name": "{trap}"}]),
        ("necks", [{"name": "chain", "necks": [{"name": "graph", "graph": "{trap}"}]}]),
        ("backbone", {"name": "recursive_fpn", "neck": {"name": "graph", "graph": "{trap}"}}),
        ("backbone", {"name": "recursive_fpn", "neck": "{trap}"}),
    ],
)
def test_a_graphs_file_is_refused(saved, tmp_path, trap, field, value):
    with pytest.raises(CheckpointError, match=REFUSED):
        load(with_part(saved, tmp_path, field, fill(value, trap)))


def test_a_graphs_text_may_end_like_a_files_name(tmp_path):
    text = "channels: 8\nmerges:\n  P3: [C3]\n  P4: [C4]\n  P5: [C5]\noutputs: [P3, P4, P5]  # of a.yaml"
    detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25}, neck=text)
    save(detector, tmp_path / "a.ckpt")
    assert load(tmp_path / "a.ckpt").card.spec.necks == (part("graph", graph=text),)


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
        load(with_card(saved, tmp_path, options={**EARLIER["options"], "neck": text}))
    with pytest.raises(CheckpointError, match=said):
        load(with_part(saved, tmp_path, "necks", [{"name": "graph", "graph": text}]))


@pytest.mark.parametrize("value", [10**30, -1, float("nan"), "x", [], {"a": 1}, None, True, 10**12])
@pytest.mark.parametrize("option", ["width", "depth"])
def test_values_that_cannot_be(saved, tmp_path, option, value):
    with pytest.raises(PyrafuseError):
        load(with_card(saved, tmp_path, options={**EARLIER["options"], "backbone_options": {option: value}}))
    before = saved[CARD_KEY]["card"]["spec"]["backbone"]
    with pytest.raises(PyrafuseError):
        load(with_part(saved, tmp_path, "backbone", {**before, option: value}))


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
