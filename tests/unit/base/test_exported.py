import ast
import json
from dataclasses import replace

import pytest

from pyrafuse.base.card import Card
from pyrafuse.base.errors import CheckpointError, PyrafuseError
from pyrafuse.base.exported import METADATA_KEY, VERSION, Interface, read_metadata, write_metadata
from pyrafuse.base.parts import part
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.spec import DetectorSpec

CARD = Card(
    spec=DetectorSpec(
        backbone=part("resnet18"),
        necks=(part("fpn", out_channels=64),),
        head=part("retinanet"),
        coder=part("delta"),
        criterion=part("dense"),
        decode=part("dense"),
        postprocess=part("suppression"),
        num_classes=2,
    ),
    model="retinanet",
    names=("it's", "dog"),
    category_ids=(7, "d"),
    preprocessing=Preprocessing(size=(128, 96), fit="letterbox"),
)


@pytest.mark.parametrize(
    "interface",
    [Interface(), Interface(input="tensor", output="raw", size=(96, 128), batch=1, precision="int8", takes_sizes=True)],
)
def test_what_is_written_is_read(interface):
    texts = write_metadata(CARD, interface)
    assert all(isinstance(text, str) for text in texts.values())
    assert read_metadata(texts, source="a.onnx") == (CARD, interface)


def test_others_read_their_keys():
    texts = write_metadata(CARD, Interface(size=(96, 128), batch=2))
    assert ast.literal_eval(texts["names"]) == {0: "it's", 1: "dog"}
    assert ast.literal_eval(texts["imgsz"]) == [96, 128]
    assert ast.literal_eval(texts["args"])["nms"] is True
    assert (int(texts["stride"]), int(texts["batch"]), int(texts["channels"])) == (32, 2, 3)
    assert texts["task"] == "detect"
    unnamed = write_metadata(replace(CARD, names=(), category_ids=()), Interface())
    assert ast.literal_eval(unnamed["names"]) == {0: "0", 1: "1"}
    assert ast.literal_eval(unnamed["imgsz"]) == [128, 96]


def changed(**changes):
    own = json.loads(write_metadata(CARD, Interface())[METADATA_KEY])
    for path, value in changes.items():
        *into, last = path.split("__")
        place = own
        for key in into:
            place = place[key]
        place[last] = value
    return {METADATA_KEY: json.dumps(own)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"names": "{0: 'a'}"}, "was not exported by pyrafuse"),
        ({METADATA_KEY: "{"}, "describes itself wrongly"),
        ({METADATA_KEY: "[1]"}, "describes itself wrongly"),
        ({METADATA_KEY: "[" * 100_000}, "describes itself wrongly"),
        (changed(version=VERSION + 1), "later pyrafuse"),
        (changed(version="x"), "describes itself wrongly"),
        (changed(interface__input="video"), "cannot have this input"),
        (changed(interface__size=[0, 32]), "cannot have this size"),
        (changed(interface__stride=0), "cannot have this stride: 0; allowed is 1 to 1048576"),
        (changed(interface__max_detections=10**12), "this max_detections: 1000000000000; allowed is 0 to 1048576"),
        (changed(interface__score=float("nan")), "cannot have this score: nan; allowed is 0 to 1"),
        (changed(interface__threshold=["after"]), r"this threshold: \['after'\]; allowed is after, input, fixed"),
        (changed(interface__more=1), "more"),
        (
            changed(card__names=["a", "b", "c"], card__category_ids=[]),
            "names 3 classes, and its detector tells 2 apart",
        ),
        (changed(card__names="ab"), "names 'ab'"),
        (changed(card__preprocessing__size=[10**9, 1]), "preprocessing"),
        (changed(card__spec__necks=[]), "necks"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(texts, message):
    with pytest.raises(CheckpointError, match=r"a\.onnx.*" + message):
        read_metadata(texts, source="a.onnx")


def test_an_interface_is_checked():
    with pytest.raises(PyrafuseError, match="cannot have this output"):
        Interface(output="boxes")  # pyright: ignore[reportArgumentType]
