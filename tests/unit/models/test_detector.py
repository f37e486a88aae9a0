"""What a detector says of what it is given, whatever its parts are."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pyrafuse.base.errors import PyrafuseError
from pyrafuse.base.images.sources import Frame, Source
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.core.predictions import Candidates
from pyrafuse.data.formats.layout import read_split
from pyrafuse.importers.loading import load
from pyrafuse.models.detector import Card, Detector
from pyrafuse.models.evaluating import evaluate
from pyrafuse.models.factory import create_model
from pyrafuse.postprocess.dense import DensePostprocess

BOXES = torch.tensor([[-4.0, 30, 20, 70], [8, 8, 24, 24], [64, 0, 90, 20]])


@pytest.fixture
def detector() -> Detector:
    """Finds the same boxes in every image; the first reaches outside a 64 x 64 one, the last lies there."""

    def decode(images):
        batch = len(images)
        scores = torch.tensor([[0.9], [0.8], [0.7]]).expand(batch, -1, -1)
        return Candidates(BOXES.expand(batch, -1, -1), scores, torch.zeros(3, dtype=torch.int64))

    made = Detector(
        nn.Conv2d(3, 3, 1), nn.Identity(), nn.Identity(), decode=decode, criterion=nn.Identity(),
        postprocess=DensePostprocess(),
    )  # fmt: skip
    made.card = Card(preprocessing=Preprocessing(size=(64, 64)))
    return made


def test_predictions_end_at_the_edges_of_the_image_and_detections_do_not(detector):
    (found,) = detector.predict(torch.zeros(3, 32, 128, dtype=torch.uint8))
    assert found.boxes.tolist() == [[0, 15, 40, 32], [16, 4, 48, 12]]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))
    (whole,) = detector.detect(torch.zeros(1, 3, 64, 64))
    assert whole.boxes.tolist() == BOXES.tolist()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\) and torch\.float32"),
        (torch.zeros(1, 1, 64, 64), r"shape \(1, 1, 64, 64\) and torch\.float32"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), r"shape \(1, 3, 64, 64\) and torch\.uint8"),
        (torch.zeros(64), r"shape \(64,\) and torch\.float32"),
    ],
)
def test_what_is_no_batch_of_normalised_images(detector, images, said):
    for answer in (detector.decode, detector.detect):
        with pytest.raises(ValueError, match=rf"images of {said} cannot be decoded: normalised floats \(B, 3, H, W\)"):
            answer(images)


IMAGE = torch.zeros(3, 64, 64, dtype=torch.uint8)


@pytest.fixture
def named(detector) -> Detector:
    """The same with three classes, one a box."""

    def decode(images):
        scores = torch.diag(torch.tensor([0.9, 0.8, 0.7])).expand(len(images), -1, -1)
        boxes = torch.tensor([[0.0, 30, 20, 60], [8, 8, 24, 24], [40, 0, 60, 20]])
        return Candidates(boxes.expand(len(images), -1, -1), scores, torch.zeros(3, dtype=torch.int64))

    detector._decode = decode
    detector.postprocess = DensePostprocess(max_detections=2)
    detector.card = replace(detector.card, names=("cat", "dog", "3"))
    return detector


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (None, ["cat", "dog"]),
        ("dog", ["dog"]),
        (["3", "cat"], ["cat", "3"]),
        (2, ["3"]),
        ([0, "0", "dog"], ["cat", "dog"]),
    ],
)
def test_only_some_classes(named, classes, expected):
    (found,) = named.predict(torch.zeros(3, 64, 128, dtype=torch.uint8), classes=classes)
    assert list(found.class_names) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "dgo"}, "unknown class 'dgo'; did you mean 'dog'"),
        ({"classes": 3}, "no class 3; the detector has 3, from 0 to 2"),
        ({"classes": -1}, "no class -1"),
        ({"classes": []}, "classes is empty"),
        ({"size": 16}, "size must be a whole number, 32 or more, got 16"),
        ({"size": (64, 64, 64)}, "size is one side, or height and width"),
        ({"batch": 0}, "batch must be a whole number, 1 or more, got 0"),
        ({"score": 1.5}, "score must be in 0..1"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here; choose from auto, cpu"),
        ({"channels": "brg"}, "channels is rgb or bgr"),
        ({"conf": 0.5}, r"predict\(\) takes no conf=; did you mean score=\?"),
        ({"imgsz": 640}, "did you mean size="),
        ({"iou": 0.5}, "did you mean nms_iou="),
        ({"batch_size": 2}, "did you mean batch="),
        ({"max_det": 2}, "did you mean max_detections="),
        ({"clases": 2}, "did you mean classes="),
        ({"save": True}, r"takes no save=: found\.save\(PATH\) writes one image's"),
        ({"stream": True}, "takes no stream=: it always gives the detections of one image after the other"),
        ({"xyz": 1}, "takes no xyz=; it takes source, score, classes, size"),
    ],
)
def test_a_wrong_option_is_told_at_once(named, options, message):
    with pytest.raises(PyrafuseError, match=message):
        named.predict(IMAGE, **options)


def test_the_source_is_no_keyword_of_others(named):
    with pytest.raises(TypeError, match="takes no src=; did you mean source="):
        named.predict(src=IMAGE)


def test_pixels_are_kept_when_asked_alone(detector):
    pixels = np.full((32, 64, 3), 7, np.uint8)
    pixels[..., 0] = 200
    assert next(detector.predict(pixels)).image is None
    kept = next(detector.predict(pixels, keep_images=True))
    assert kept.image is not None
    assert kept.image[:, 0, 0].tolist() == [200, 7, 7]
    assert next(detector.predict(pixels, channels="bgr", keep_images=True)).image[:, 0, 0].tolist() == [7, 7, 200]
    assert [tuple(crop.shape) for crop in kept.crop()] == [(3, 17, 20), (3, 8, 16)]


def test_another_size_of_the_input(detector):
    detector._decode = lambda images: Candidates(
        torch.tensor([[0.0, 0.0, images.shape[3] / 2, images.shape[2]]]).expand(len(images), -1, -1),
        torch.full((len(images), 1, 1), 0.9),
        torch.zeros(1, dtype=torch.int64),
    )
    seen = []
    detector.backbone.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape[-2:])))
    for size, expected in ((None, (64, 64)), (96, (96, 96)), ((32, 160), (32, 160))):
        (found,) = detector.predict(IMAGE, size=size)
        assert seen.pop() == expected
        assert found.boxes.tolist() == [[0, 0, 32, 64]]
    assert detector.card.preprocessing.size == (64, 64)


def test_images_are_read_as_they_are_asked_for_and_the_source_is_left(detector, monkeypatch):
    state = {"read": 0, "closed": 0}

    def read():
        try:
            for index in range(5):
                state["read"] += 1
                yield Frame(f"f{index}", np.zeros((8, 8, 3), np.uint8))
        finally:
            state["closed"] += 1

    monkeypatch.setattr("pyrafuse.models.detector.open_source", lambda *_, **__: Source(read, None, is_stream=True))
    for found in detector.predict(0):
        assert found.source == "f0"
        break
    assert state == {"read": 1, "closed": 1}
    with detector.predict(0) as each:
        assert [next(each).source, next(each).source] == ["f0", "f1"]
    assert state == {"read": 3, "closed": 2}
    assert list(each) == []
    held = detector.predict(0)
    next(held)
    held.close()
    assert state["closed"] == 3
    assert len(list(detector.predict(0))) == 5
    with pytest.raises(TypeError, match=r"next\(\.\.\.\) for one image or list\(\.\.\.\)\[0\]"):
        detector.predict(0)[0]


def test_a_call_with_no_picture_names_it(detector):
    with pytest.raises(PyrafuseError, match=r"no such file or folder: a\.jpg"):
        detector("a.jpg")


def test_a_saved_detector_is_loaded_again(tmp_path):
    detector = create_model("yolov3_asff_small", num_classes=2)
    detector.card = replace(detector.card, names=("cat", "dog"), preprocessing=Preprocessing(size=(64, 64)))
    detector.save(tmp_path / "a.ckpt")
    again = load(tmp_path / "a.ckpt", device="cpu")
    assert again.card == detector.card
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)


def test_evaluating_by_the_name_of_the_data(tmp_path):
    detector = create_model("yolov3_asff_small", num_classes=3).eval()
    shapes = "shapes:train=2,val=2,size=64"
    names = read_split(shapes, "val").data.names
    detector.card = replace(detector.card, names=names, preprocessing=Preprocessing(size=(64, 64)))
    result = detector.evaluate(shapes, workers=0, batch=2)
    assert result.names == names
    assert result.to_dict() == evaluate(detector, read_split(shapes, "val").data, workers=0, batch_size=2).to_dict()
    with pytest.raises(PyrafuseError, match=r"evaluate\(\) takes no imgsz=; did you mean size="):
        detector.evaluate(shapes, imgsz=64)


def test_evaluating_data_with_faults_warns_and_missing_images_stop(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    categories = [{"id": 1, "name": "cat"}]
    images = [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}]
    boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 4, "iscrowd": 0}
             for i, box in enumerate(([1, 1, 20, 20], [500, 500, 20, 20]))]  # fmt: skip
    content = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "val.json").write_text(json.dumps(content))
    detector = create_model("yolov3_asff_small", num_classes=1).eval()
    detector.card = replace(detector.card, names=("cat",), preprocessing=Preprocessing(size=(64, 64)))
    with pytest.warns(UserWarning, match=r"1 problems with .*val\.json .* box \[500"):
        detector.evaluate(tmp_path / "val.json", workers=0)
    content["images"].append({**images[0], "id": 2, "file_name": "gone.png"})
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(
        PyrafuseError, match=r"gone\.png does not exist; put it there, or measure on the others with ReadingRules"
    ):
        detector.evaluate(tmp_path / "val.json", workers=0)


def test_a_call_with_one_image_gives_its_detections(detector, tmp_path):
    pixels = np.full((60, 80, 3), 90, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    expected = next(detector.predict(tmp_path / "one.png", score=0.1))
    for source in (tmp_path / "one.png", str(tmp_path / "one.png"), Image.fromarray(pixels), pixels):
        found = detector(source, score=0.1)
        assert found.boxes.tolist() == expected.boxes.tolist()
        assert found.image_size == (60, 80)
    Image.fromarray(pixels).save(tmp_path / "two.png")
    with pytest.raises(PyrafuseError, match=r"several images: loop over detector.predict\(source\)"):
        detector(tmp_path)
