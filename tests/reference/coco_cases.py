"""Random images with their detections, and what pycocotools says of them."""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord


def record(boxes, labels, *, crowd=None, areas=None, image_id=0, size=200):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return ImageRecord(
        path=Path(f"{image_id}.jpg"),
        image_id=image_id,
        width=size,
        height=size,
        boxes=boxes,
        labels=np.asarray(labels, np.int64),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool),
        areas=sides.prod(axis=1) if areas is None else np.asarray(areas, np.float32),
    )


def data_of(records, names):
    return DetectionData(tuple(records), tuple(names), tuple(range(1, len(names) + 1)), "coco", "val")


def found(boxes, scores, labels):
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.zeros(len(labels), dtype=torch.int64),
    )


def random_boxes(rng, n, size=200):
    corner = rng.uniform(0, size - 5, (n, 2))
    sides = np.exp(rng.uniform(np.log(4), np.log(size), (n, 2)))
    return np.concatenate([corner, np.minimum(corner + sides, size)], 1).astype(np.float32)


def random_case(seed, *, num_images=12, num_classes=4, found_per_image=60):
    """Images with and without objects, crowds, foreign areas, ids out of order, scores with many ties."""
    rng = np.random.default_rng(seed)
    records, detections = [], []
    for image_id in rng.permutation(1000)[:num_images].tolist():
        n = int(rng.integers(0, 12)) if rng.uniform() > 0.2 else 0
        boxes = random_boxes(rng, n)
        sides = boxes[:, 2:] - boxes[:, :2]
        labels = rng.integers(0, num_classes - 1, n)  # the last class has no object
        records.append(
            record(
                boxes, labels, crowd=rng.uniform(size=n) < 0.2,
                areas=sides.prod(1) * rng.uniform(0.3, 1, n), image_id=image_id,
            )
        )  # fmt: skip
        m = int(rng.integers(0, found_per_image)) if rng.uniform() > 0.15 else 0
        near = rng.integers(0, max(n, 1), m)
        guesses = random_boxes(rng, m)
        guess_labels = rng.integers(0, num_classes, m)
        if n:
            is_near = rng.uniform(size=m) < 0.6
            guesses[is_near] = boxes[near[is_near]] + rng.normal(0, 4, (is_near.sum(), 4))
            guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
            guess_labels[is_near] = labels[near[is_near]]
        scores = np.round(rng.uniform(size=m), 1)
        detections.append(found(guesses, scores, guess_labels))
    return data_of(records, [f"class {k}" for k in range(num_classes)]), detections


def oracle(data, detections):
    truth, guesses = [], []
    for r, d in zip(data.records, detections, strict=True):
        for box, label, crowd, area in zip(r.boxes.tolist(), r.labels, r.crowd, r.areas, strict=True):
            x1, y1, x2, y2 = box
            truth.append(
                {"id": len(truth) + 1, "image_id": r.image_id, "category_id": int(label) + 1, "iscrowd": int(crowd),
                 "area": float(area), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            )  # fmt: skip
        for box, score, label in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist(), strict=True):
            x1, y1, x2, y2 = box
            guesses.append(
                {"image_id": r.image_id, "category_id": label + 1, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": r.image_id} for r in data.records],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(data.names)],
            "annotations": truth,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(guesses), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge
