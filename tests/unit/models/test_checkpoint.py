"""Detectors in files."""

import errno
import os
from dataclasses import replace

import pytest
import torch

import pyrafuse
from pyrafuse.base.card import CARD_KEY
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.registry import Entry
from pyrafuse.importers.loading import load
from pyrafuse.models.checkpoint import save
from pyrafuse.models.factory import create_model
from pyrafuse.models.registry import MODELS

OPTIONS = {
    "backbone": {"width": 0.25},
    "head": {"anchors": (((8, 8),), ((20.5, 30),), ((60, 60),))},
    "postprocess": {"score": 0.2},
}


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    detector = create_model("yolov3_asff_small", num_classes=2, **OPTIONS).eval()
    detector.card = replace(
        detector.card,
        names=("cat", "dog"),
        category_ids=(3, "white cell"),
        preprocessing=Preprocessing(size=(64, 96), fit="letterbox"),
        origin="a test",
    )
    return detector


@pytest.fixture
def saved(detector, tmp_path):
    save(detector, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_round_trip(detector, saved):
    again = pyrafuse.load(saved)
    assert not again.training
    assert again.names == ("cat", "dog")
    assert again.card.category_ids == (3, "white cell")
    assert again.card.preprocessing == detector.card.preprocessing
    assert again.card.origin == "a test"
    assert again.postprocess == detector.postprocess
    images = torch.randn(2, 3, 64, 96)
    got, expected = again.decode(images), detector.decode(images)
    assert torch.equal(got.boxes, expected.boxes)
    assert torch.equal(got.scores, expected.scores)


def test_a_name_that_stands_for_something_else_by_now(detector, saved, monkeypatch):
    other = MODELS.get("yolov3")().with_parts(head={"branches": 24, "rfb": True}, postprocess={"nms_iou": 0.1})
    monkeypatch.setitem(MODELS._entries, "yolov3_asff_small", Entry(lambda: other))
    again = load(saved)
    assert again.postprocess == detector.postprocess
    assert again.criterion.__dict__.keys() == detector.criterion.__dict__.keys()
    assert again.criterion.box_weight == detector.criterion.box_weight
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(again.decode(images).boxes, detector.decode(images).boxes)
    save(again, saved)
    assert load(saved).card == again.card


def test_a_card_that_does_not_say_what_its_name_stood_for(detector, saved, monkeypatch):
    def make_earlier(content):
        card = content[CARD_KEY]["card"]
        del card["spec"]
        card["options"] = {"num_classes": 2, **{f"{part}_options": options for part, options in OPTIONS.items()}}

    changed(saved, make_earlier)
    assert load(saved).card == detector.card
    other = MODELS.get("yolov3_asff_small")().with_parts(neck="yolo_fpn")
    monkeypatch.setitem(MODELS._entries, "yolov3_asff_small", Entry(lambda: other))
    with pytest.raises(CheckpointError, match=r"a\.ckpt does not fit"):
        load(saved)


def test_twice(saved, tmp_path):
    save(load(saved), tmp_path / "b.ckpt")
    first, second = load(saved), load(tmp_path / "b.ckpt")
    assert first.card == second.card
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_full_disk(detector, saved, monkeypatch):
    before = saved.read_bytes()

    def fsync(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(PyrafuseError, match=r"cannot write .*a\.ckpt: No space left on device"):
        save(detector, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["a.ckpt"]


def changed(saved, change):
    content = torch.load(saved, weights_only=True)
    change(content)
    torch.save(content, saved)
    return saved


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["state_dict"].pop("detector.head.outputs.0.boxes.bias"),
            r"missing: head\.outputs\.0\.boxes\.bias",
        ),
        (
            lambda c: c["state_dict"].update({"detector.head.outputs.9.bias": torch.zeros(1)}),
            r"extra: head\.outputs\.9\.bias",
        ),
        (
            lambda c: c["state_dict"].update({"detector.head.outputs.0.boxes.bias": torch.zeros(5)}),
            r"head\.outputs\.0\.boxes\.bias is \(5,\), needs \(10,\)",
        ),
        (lambda c: c.pop("state_dict"), "describes no detector, .*state_dict"),
        (lambda c: c[CARD_KEY].pop("card"), "describes no detector, .*card"),
        (
            lambda c: c[CARD_KEY]["card"]["spec"]["head"].update(name="yolov9"),
            "needs a part that cannot be built: unknown head 'yolov9'",
        ),
        (
            lambda c: c.update({CARD_KEY: 7}),
            f"describes no detector, .*wrong kind: {CARD_KEY} 7; take another checkpoint",
        ),
        (
            lambda c: c[CARD_KEY].update(card=7),
            "wrong kind: card 7; take another checkpoint, or save the detector anew",
        ),
        (lambda c: c.update(state_dict=[1]), r"wrong kind: state_dict \[1\]; take another"),
        (lambda c: c[CARD_KEY]["card"].update(preprocessing=7), "wrong kind: preprocessing 7; take another"),
        (lambda c: c[CARD_KEY]["card"].update(colour="red"), "describes no detector, .*colour"),
        (lambda c: c[CARD_KEY]["card"].update(model=7), "describes no detector, .*wrong kind: model 7"),
        (lambda c: c[CARD_KEY]["card"].update(names=[3], spec=[]), r"described by a mapping of its parts, not by \[\]"),
        (lambda c: c[CARD_KEY]["card"].update(names=[3]), r"wrong kind: names \(3,\)"),
        (lambda c: c[CARD_KEY]["card"].update(category_ids=[3, None]), r"wrong kind: category_ids \(3, None\)"),
        (
            lambda c: c[CARD_KEY]["card"]["spec"].update(num_classes="two"),
            "num_classes must be a .*'two'",
        ),
        (lambda c: c[CARD_KEY]["card"]["preprocessing"].update(padding="white"), "padding='white'"),
        (lambda c: c[CARD_KEY]["card"]["preprocessing"].update(std=(0, 1, 1)), r"std=\(0, 1, 1\)"),
        (
            lambda c: c[CARD_KEY]["card"]["preprocessing"].update(size="x"),
            r"preprocessing Preprocessing\(size='x'",
        ),
        (lambda c: c[CARD_KEY]["card"]["spec"].update(nek="x"), "a detector has no 'nek'"),
        (
            lambda c: c[CARD_KEY]["card"]["spec"]["head"].update(nek="x"),
            "cannot be built: .*takes no .*'nek'",
        ),
    ],
)
def test_what_does_not_fit_is_named(saved, change, said):
    with pytest.raises(CheckpointError, match=rf"a\.ckpt.* {said}"):
        load(changed(saved, change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {"a": torch.zeros(1)}}, "keys state_dict"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, r"keys layer1\.0\.conv1\.weight"),
        ([1, 2], "list"),
        (torch.zeros(3), "Tensor"),
        ({}, "keys "),
    ],
)
def test_other_checkpoints(tmp_path, content, said):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=rf"a\.pth is no checkpoint of pyrafuse and .*\(found {said}"):
        load(tmp_path / "a.pth")


def test_the_backbones_own_file_is_not_needed_again(tmp_path):
    backbone = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25}).backbone
    state = {k.replace("layers.", "features.", 1): v for k, v in backbone.state_dict().items()}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "backbone.pth")
    weights = str(tmp_path / "backbone.pth")
    detector = create_model("yolov3_small", num_classes=1, backbone={"width": 0.25}, backbone_weights=weights)
    for (name, a), b in zip(detector.backbone.state_dict().items(), backbone.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    save(detector, tmp_path / "a.ckpt")
    (tmp_path / "backbone.pth").unlink()
    assert load(tmp_path / "a.ckpt").card.spec.backbone == detector.card.spec.backbone
    assert not {"weights", "pretrained"} & set(detector.card.spec.backbone.options)


def test_backbone_weights_that_do_not_fit(tmp_path):
    torch.save({"stem.conv.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"a\.pth does not fit Darknet53; missing: stem\.norm\.weight, .* and \d+ more"
    ):
        create_model("yolov3", backbone={"width": 0.25}, backbone_weights=tmp_path / "a.pth")
    torch.save([1], tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"b\.pth holds no state_dict: found list"):
        create_model("yolov3", backbone_weights=tmp_path / "b.pth")
