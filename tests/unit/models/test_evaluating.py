import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from pyrafuse.base.errors import DataError, PyrafuseError
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.core.predictions import Candidates
from pyrafuse.core.pyramid import PyramidSpec
from pyrafuse.data.formats.coco import read_coco
from pyrafuse.data.reading.folders import Tree
from pyrafuse.evaluation.coco import to_coco_results
from pyrafuse.evaluation.collecting import match_classes
from pyrafuse.models.describing import describe
from pyrafuse.models.detector import Card, Detector
from pyrafuse.models.evaluating import detect_all, evaluate
from pyrafuse.postprocess.dense import DensePostprocess

BOXES = {"red": (8.0, 8.0, 40.0, 40.0), "blue": (64.0, 16.0, 96.0, 56.0)}  # in pixels of a 128 x 64 image


class Seer(nn.Module):
    """In place of a backbone: remembers at what sizes it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.features = PyramidSpec((1,), (32,))
        self.sizes: list[tuple[int, int]] = []
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        self.sizes.append((images.shape[-2], images.shape[-1]))
        return images


def create_detector(names: tuple[str, ...]) -> tuple[Detector, Seer]:
    """Finds both boxes in every image, at the network's scale: red with score 0.9, blue with 0.005."""
    seer = Seer()

    def decode(images):
        scale = torch.tensor([images.shape[-1] / 128, images.shape[-2] / 64] * 2)
        boxes = torch.tensor(list(BOXES.values())) * scale
        scores = torch.zeros(2, len(names))
        for row, (name, score) in enumerate(zip(BOXES, (0.9, 0.005), strict=True)):
            if name in names:
                scores[row, names.index(name)] = score
        batch = len(images)
        return Candidates(boxes.expand(batch, -1, -1), scores.expand(batch, -1, -1), torch.zeros(2, dtype=torch.int64))

    detector = Detector(
        seer, nn.Identity(), nn.Identity(), decode=decode, criterion=nn.Identity(), postprocess=DensePostprocess()
    )
    detector.neck.features = seer.features
    detector.card = Card(
        spec=describe("yolov3_small", num_classes=len(names)), names=names, preprocessing=Preprocessing(size=(64, 64))
    )
    return detector, seer


@pytest.fixture
def data(tmp_path) -> DetectionData:
    """Two images of 128 x 64 with both objects; ids and category ids with gaps, blue first."""
    records = []
    for i in range(2):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((64, 128, 3), 100, np.uint8)).save(path)
        boxes = np.array([BOXES["blue"], BOXES["red"]], np.float32)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        labels = np.array([0, 1])
        records.append(ImageRecord(path, 10 * i + 5, 128, 64, boxes, labels, np.zeros(2, bool), areas))
    return DetectionData(tuple(records), ("blue", "red"), (7, 3), "coco", "val")


def test_classes_in_another_order_are_matched_by_name(data):
    detector, seer = create_detector(("red", "green", "blue"))
    assert match_classes(detector.card, data).tolist() == [1, -1, 0]
    result = evaluate(detector, data, workers=0, batch_size=1)
    assert (result.ap, result.num_detections, result.names) == (1.0, 4, ("blue", "red"))
    assert seer.sizes == [(64, 64), (64, 64)]  # the detector's own size


def test_unlikely_detections_count_and_the_size_can_be_changed(data):
    detector, seer = create_detector(("blue", "red"))
    assert match_classes(detector.card, data) is None
    assert evaluate(detector, data, size=96, workers=0).ap == 1.0
    assert seer.sizes == [(96, 96)]
    result = evaluate(detector, data, size=(64, 128), score=0.01, workers=0)
    assert [c.ap for c in result.classes] == [0.0, 1.0]


def test_the_number_of_detections_can_be_set(data):
    detector, _ = create_detector(("red", "blue"))
    kept = detect_all(detector, data, workers=0, score=0)
    assert (len(kept.rows()), kept.max_detections) == (2 * len(data), 100)
    one = detect_all(detector, data, workers=0, score=0, max_detections=1)
    assert (len(one.rows()), one.max_detections) == (len(data), 1)
    with pytest.raises(PyrafuseError, match="max_detections must be a whole number, 1 or more, got 0"):
        evaluate(detector, data, workers=0, max_detections=0)


def test_classes_that_the_data_lack_are_left_out(data):
    only_red = replace(
        data,
        names=("red",),
        category_ids=(3,),
        records=tuple(
            replace(r, boxes=r.boxes[1:], labels=np.zeros(1, np.int64), crowd=r.crowd[1:], areas=r.areas[1:])
            for r in data.records
        ),
    )
    detector, _ = create_detector(("blue", "red"))
    result = evaluate(detector, only_red, workers=0)
    assert (result.ap, result.num_detections) == (1.0, 2)


def test_classes_that_the_detector_does_not_know_are_an_error(data):
    detector, _ = create_detector(("red", "green"))
    with pytest.raises(DataError, match=r"does not know blue\. It knows red, green; the data have blue, red\."):
        evaluate(detector, data, workers=0)


def test_a_detector_without_names_is_taken_at_its_word(data):
    detector, _ = create_detector(("blue", "red"))
    detector.card = replace(detector.card, names=())
    assert evaluate(detector, data, workers=0).ap == 1.0
    detector.card = replace(detector.card, spec=describe("yolov3_small"))
    with pytest.raises(DataError, match="It knows 80 classes without names"):
        evaluate(detector, data, workers=0)


def test_coco_results_carry_the_data_s_own_ids(data):
    detector, _ = create_detector(("red", "blue"))
    rows = json.loads(to_coco_results(detect_all(detector, data, workers=0)))
    assert rows[:2] == [
        {
            "image_id": 5,
            "category_id": 3,
            "category_name": "red",
            "bbox": [8.0, 8.0, 32.0, 32.0],
            "score": pytest.approx(0.9),
        },
        {
            "image_id": 5,
            "category_id": 7,
            "category_name": "blue",
            "bbox": [64.0, 16.0, 32.0, 40.0],
            "score": pytest.approx(0.005),
        },
    ]
    assert [row["image_id"] for row in rows] == [5, 5, 15, 15]


def test_the_official_evaluation_knows_results_whose_ids_are_texts(data, tmp_path):
    annotations = [
        {"id": 2 * i + k + 1, "image_id": name, "category_id": category, "bbox": box, "area": 1024, "iscrowd": 0}
        for i, name in enumerate(("01", "x/2"))
        for k, (category, box) in enumerate((("7", [64, 16, 32, 40]), ("a", [8, 8, 32, 32])))
    ]
    content = {
        "images": [{"id": name, "file_name": f"{i}.png"} for i, name in enumerate(("01", "x/2"))],
        "annotations": annotations,
        "categories": [{"id": "a", "name": "red"}, {"id": "7", "name": "blue"}],
    }
    file, results = tmp_path / "val.json", tmp_path / "results.json"
    file.write_text(json.dumps(content))
    own = read_coco(file, split="val", tree=Tree(tmp_path)).data
    detector, _ = create_detector(("red", "blue"))
    results.write_text(to_coco_results(detect_all(detector, own, workers=0, score=0.01)))
    assert {(row["image_id"], row["category_id"]) for row in json.loads(results.read_text())} == {
        ("01", "a"), ("x/2", "a"),
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        official = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        official.evaluate()
        official.accumulate()
        official.summarize()
    assert official.stats[0] == pytest.approx(0.5)  # all of one class, none of the other


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 16}, "size must be 32 or more, got 16"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"score": 1.5}, "score must be in 0..1, got 1.5"),
    ],
)
def test_numbers_out_of_range(data, given, message):
    detector, _ = create_detector(("blue", "red"))
    with pytest.raises(PyrafuseError, match=message):
        evaluate(detector, data, workers=0, **given)


def test_an_interrupt_says_that_nothing_is_kept(data, monkeypatch):
    detector, seer = create_detector(("blue", "red"))
    look = seer.forward

    def stop(images):
        if seer.sizes:
            raise KeyboardInterrupt
        return look(images)

    monkeypatch.setattr(seer, "forward", stop)
    with pytest.raises(KeyboardInterrupt, match=r"^1 of 2 images were looked at, and nothing is written: the figures"):
        evaluate(detector, data, workers=0, batch_size=1)


def test_an_image_that_is_gone_is_named(data):
    Path(data.records[1].path).unlink()
    detector, _ = create_detector(("blue", "red"))
    with pytest.raises(DataError, match=r"1\.png"):
        evaluate(detector, data, workers=0)
