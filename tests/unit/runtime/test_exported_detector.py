import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import pyrafuse
from pyrafuse.base.card import Card
from pyrafuse.base.errors import CheckpointError, DataError, PyrafuseError
from pyrafuse.base.exported import Interface, write_metadata
from pyrafuse.base.images.sources import open_source
from pyrafuse.inference.predicting import predict_to
from pyrafuse.runtime import load
from pyrafuse.serving.batching import Choice
from pyrafuse.serving.service import Service

WHITE = np.full((128, 96, 3), 255, np.uint8)
GREY = np.full((128, 96, 3), 51, np.uint8)  # 0.2


def columns(found):
    return [
        (round(d.score, 5), d.name, tuple(round(v, 3) for v in d.box), d.level) for d in found
    ]  # what the detector answers, readable


@pytest.mark.parametrize("form", ["image", "fitted", "tensor"])
def test_what_the_file_finds_comes_as_detections(write, form):
    detector = load(write(Interface(input=form, size=(64, 64) if form == "image" else None)))
    found = detector(WHITE, keep_images=True)
    # 128 x 96 pixels were stretched to 64 x 64, and the boxes are cut at the edges
    scale_x, scale_y = (1, 1) if form == "image" else (1.5, 2)
    assert columns(found) == [
        (score, name, tuple(float(v) for v in (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)), level)
        for score, name, (x1, y1, x2, y2), level in (
            (0.9, "cat", (0, 0, 32, 32), 0),
            (0.8, "cat", (1, 0, 32, 32), 0),
            (0.7, "dog", (0, 0, 32, 31), 1),
            (0.3, "dog", (40, 40, 64, 64), 1),
        )
    ]
    assert (found.image_size, found.names) == ((128, 96), ("cat", "dog"))
    assert isinstance(found.boxes, np.ndarray)
    assert found.image.shape == (3, 128, 96)
    assert [(a.dtype.name) for a in (found.boxes, found.scores, found.labels, found.levels, found.rows)] == [
        "float32",
        "float32",
        "int64",
        "int64",
        "int64",
    ]


@pytest.mark.parametrize("form", ["image", "fitted", "tensor"])
def test_the_pixels_reach_the_graph(write, form):
    detector = load(write(Interface(input=form, size=(64, 64) if form == "image" else None)))
    assert [round(s, 3) for s in detector(GREY, score=0.15).scores.tolist()] == [0.18, 0.16]


def test_rows_are_suppressed_here_as_a_file_would(write):
    path = write(Interface(output="rows", input="fitted", nms_iou=0.5, score=0.001))
    detector = load(path)
    image = np.full((64, 64, 3), 255, np.uint8)
    assert [(round(d.score, 3), d.label) for d in detector(image)] == [(0.9, 0), (0.7, 1), (0.3, 1)]
    assert len(detector(image, nms_iou=0.99)) == 4
    assert len(detector(image, max_detections=1)) == 1
    assert detector(image).rows.tolist() == [0, 2, 3]


def test_rows_without_a_score_hold_nothing(write):
    interface = Interface(output="rows", input="fitted", score=0.0)
    found = load(write(interface, scores=(0.9, 0.0, 0.0, 0.3)))(np.full((64, 64, 3), 255, np.uint8), score=0.0)
    assert found.rows.tolist() == [0, 3]


def test_a_file_that_applies_the_score_is_told_it_and_not_judged_afterwards(write, monkeypatch):
    detector = load(write(Interface(input="fitted", threshold="input", score=0.05)))
    fed = []
    run = detector._engine.run
    monkeypatch.setattr(detector._engine, "run", lambda feeds: fed.append(feeds["score"].tolist()) or run(feeds))
    assert detector(WHITE, score=0.75).scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.3])
    list(detector.predict([WHITE, WHITE], batch=2))
    list(detector.predict_frames(open_source(WHITE)))
    assert fed == [[0.75], [0.25, 0.25], [pytest.approx(0.05)]]


def test_rows_of_a_fixed_score_take_no_other(write):
    detector = load(write(Interface(input="fitted", output="rows", threshold="fixed", score=0.1)))
    assert len(detector(WHITE, score=0.1)) == 3
    with pytest.raises(PyrafuseError, match=r"no other score can be applied.*--score 0\.25, or with --output nms"):
        detector(WHITE)
    service = Service({"mine": detector})
    with pytest.raises(PyrafuseError, match=r"^mine gives what scores 0\.1, "):  # a client learns no path
        service.batchers["mine"].detect(np.zeros((64, 64, 3), np.uint8), Choice(0.5)).result(10)
    service.close()


def test_places_behind_the_count_hold_nothing(write):
    assert len(load(write(Interface(input="fitted"), count=2))(WHITE)) == 2


def test_classes_and_scores_choose(write):
    detector = load(write(Interface(input="fitted")))
    assert [d.name for d in detector(WHITE, classes="dog")] == ["dog", "dog"]
    assert len(detector(WHITE, score=0.75)) == 2
    assert len(detector(WHITE, max_detections=3)) == 3


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
@pytest.mark.parametrize("form", ["image", "fitted"])
def test_images_of_several_sizes_keep_their_order_in_batches(write, form, batch):
    detector = load(write(Interface(input=form, size=(64, 64) if form == "image" else None)))
    sizes = [(64, 64), (64, 64), (128, 96), (64, 64), (32, 200)]
    found = list(detector.predict([np.full((*size, 3), 255, np.uint8) for size in sizes], batch=batch))
    assert [(each.source, each.image_size) for each in found] == [(f"image{i}", size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("fixed", [1, 3])
def test_a_file_of_a_fixed_batch_takes_fewer_images_and_more(write, fixed):
    detector = load(write(Interface(input="fitted", size=(64, 64), batch=fixed)))
    found = list(detector.predict([WHITE, GREY, WHITE, WHITE], batch=2, score=0.25))
    assert [len(each) for each in found] == [4, 0, 4, 4]


def test_sizes_say_what_an_image_takes_up_where_the_ratio_is_kept(write, monkeypatch):
    card = Card(names=("cat", "dog"), preprocessing=pyrafuse.runtime.load(write(Interface())).card.preprocessing)
    card = replace(card, preprocessing=replace(card.preprocessing, fit="keep_ratio", size=(64, 96), pad_multiple=32))
    interface = Interface(input="fitted", takes_sizes=True)
    detector = load(write(interface, metadata=write_metadata(card, interface)))
    fed = []
    run = detector._engine.run
    monkeypatch.setattr(detector._engine, "run", lambda feeds: fed.append(feeds) or run(feeds))
    images = [np.full((60, 64, 3), 255, np.uint8), np.full((64, 90, 3), 255, np.uint8)]
    assert len(list(detector.predict(images, batch=2))) == 2
    (feeds,) = fed
    assert feeds["images"].shape == (2, 64, 96, 3)
    assert feeds["sizes"].tolist() == [[64, 68], [64, 90]]
    assert feeds["images"][0, :, 68:].max() <= 255 * 0  # black behind the first image
    assert feeds["images"][0, :, :68].min() == 255


@pytest.mark.parametrize(
    ("interface", "options", "message"),
    [
        (Interface(score=0.3), {"score": 0.2}, r"score 0\.2 is below 0\.3.*--score 0\.2"),
        (Interface(nms_iou=0.5), {"nms_iou": 0.6}, r"suppresses by itself, with nms_iou 0\.5.*--nms-iou 0\.6"),
        (Interface(max_detections=4), {"max_detections": 5}, "max_detections 5 is above 4.*--max-detections 5"),
        (Interface(size=(64, 64)), {"size": 96}, "computes at 64 x 64 pixels alone, not at 96 x 96: leave size out"),
        (Interface(input="fitted", size=(64, 64)), {"size": 96}, "computes at 64 x 64 pixels alone"),
        (Interface(input="fitted"), {"size": 100}, "size 100 x 100 is no multiple of 32.*give 128 x 128"),
        (Interface(), {"device": "cuda"}, "no device 'cuda'.*give cpu"),
        (Interface(), {"classes": "horse"}, "unknown class 'horse'"),
        (Interface(), {"batch": 0}, "batch must be a whole number"),
        (Interface(), {"conf": 0.1}, "score"),
    ],
)
def test_what_the_file_cannot_do_is_refused_with_the_remedy(write, interface, options, message):
    detector = load(write(interface))
    with pytest.raises(PyrafuseError, match=message):
        detector.predict(WHITE, **options)


def test_another_size_of_a_file_of_free_sizes_is_taken(write, monkeypatch):
    detector = load(write(Interface(input="fitted")))
    fed = []
    run = detector._engine.run
    monkeypatch.setattr(detector._engine, "run", lambda feeds: fed.append(feeds["images"].shape) or run(feeds))
    detector(WHITE, size=(96, 128))
    assert fed == [(1, 96, 128, 3)]


def test_a_class_that_the_card_does_not_know_is_refused(write):
    with pytest.raises(CheckpointError, match=r"model\.onnx finds class 5, and its card knows 2 classes"):
        load(write(Interface(input="fitted"), labels=(0, 0, 1, 5)))(WHITE)


def test_an_image_that_cannot_be_read_is_an_error_of_predict_and_passed_over_by_predict_to(write, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture")
    Image.fromarray(WHITE).save(tmp_path / "in" / "b.png")
    detector = load(write(Interface(input="fitted")))
    with pytest.raises(DataError, match=r"a\.jpg"):
        list(detector.predict(tmp_path / "in"))
    summary = predict_to(
        detector, str(tmp_path / "in"), tmp_path / "out", formats=("image", "crop", "json", "coco", "yolo")
    )
    assert (summary.num_images, summary.num_objects, summary.num_failed) == (1, 4, 1)
    rows = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [row["category_id"] for row in rows] == [7, 7, 9, 9]
    assert (tmp_path / "out" / "images" / "b.jpg").is_file()
    assert len(list((tmp_path / "out" / "crops" / "cat").iterdir())) == 2
