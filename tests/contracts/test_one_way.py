"""Validation, `evaluate` and `predict` find the same detections in the same images, for a model of every family."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from pyrafuse.base.detections import Detections
from pyrafuse.base.preprocessing import Preprocessing
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.data.loading.loaders import create_eval_loader
from pyrafuse.evaluation.coco import EVALUATION_SCORE, CocoEvaluator
from pyrafuse.models.evaluating import detect_all
from pyrafuse.training.validating import MeanLosses, validate_batch

FAMILIES = (
    "dense-retinanet",
    "dense-atss",
    "dense-fcos",
    "dense-ga_retinanet",
    "dense-ssd300",
    "dense-m2det",
    "dense-efficientdet_d0",
    "yolo-yolov3",
    "yolo-yolov3_plain",
    "two_stage-faster_rcnn",
    "two_stage-cascade_rcnn",
)
FITS = {fit: Preprocessing(size=(64, 96), fit=fit) for fit in ("letterbox", "stretch", "keep_ratio")}
SIZES = ((50, 110), (120, 70), (64, 96))
"""Heights and widths: wider and narrower than the input, and as large as it is."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    records = []
    for number, (height, width) in enumerate(SIZES):
        path = folder / f"{number}.png"
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST))
        records.append(
            ImageRecord(
                path=path,
                image_id=number,
                width=width,
                height=height,
                boxes=np.array([[5, 5, 40, 45]], dtype=np.float32),
                labels=np.array([number]),
                crowd=np.array([False]),
                areas=np.array([1400], dtype=np.float32),
            )
        )
    return DetectionData(tuple(records), ("a", "b", "c"), (1, 2, 3), layout="coco", split="val")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, build):
    return build(request.param)


def validated(detector, data, batch_size):
    preprocessing = detector.card.preprocessing
    loader = create_eval_loader(data, preprocessing=preprocessing, batch_size=batch_size, num_workers=0)
    evaluator = CocoEvaluator(data)
    with torch.inference_mode():
        for batch in loader:
            validate_batch(detector.eval(), batch, evaluator, MeanLosses(), max_detections=None)
    return of_images(evaluator)


def evaluated(detector, data, batch_size):
    return of_images(detect_all(detector, data, score=EVALUATION_SCORE, batch_size=batch_size, workers=0))


def predicted(detector, data, batch_size):
    files = [record.path for record in data.records]
    return list(detector.predict(files, score=EVALUATION_SCORE, batch=batch_size))


def of_images(evaluator):
    """What an evaluator holds of each image, cut at the image's edges as `predict` gives it."""
    rows = torch.from_numpy(evaluator.rows())
    return [
        Detections(
            boxes=part[:, 1:5].float(),
            scores=part[:, 5].float(),
            labels=part[:, 6].long(),
            levels=torch.zeros(len(part), dtype=torch.int64),
            image_size=(record.height, record.width),
        ).clip()
        for number, record in enumerate(evaluator.data.records)
        for part in [rows[rows[:, 0] == number]]
    ]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("fit", FITS)
def test_finds_the_same_in_validation_evaluation_and_prediction(family, data, fit, batch_size):
    """Bit by bit.

    Only a batch of several images that ``keep_ratio`` fits has padding that depends on the other images: there the
    three agree on the batch, while the detections may differ from those of the images one by one.
    """
    family.card = replace(family.card, names=data.names, preprocessing=FITS[fit])
    by_predict = predicted(family, data, batch_size)
    assert all(len(found) >= 10 and len(found.scores.unique()) >= 10 for found in by_predict)
    for way in (validated, evaluated):
        for record, found, expected in zip(data.records, way(family, data, batch_size), by_predict, strict=True):
            what = f"{way.__name__}: {record.path.name}"
            assert torch.equal(found.labels, expected.labels), what
            assert torch.equal(found.scores, expected.scores), what
            assert torch.equal(found.boxes, expected.boxes), what


def test_the_families_hold_soft_suppression_with_a_pixel_offset(build):
    postprocess = build("dense-m2det").postprocess
    assert postprocess.suppression == "soft"
    assert postprocess.pixel_offset == 1
