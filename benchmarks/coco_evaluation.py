"""Time COCO's figures of as many detections as COCO's validation set gives: 5,000 images, 100 each, 80 classes.

    python benchmarks/coco_evaluation.py [--images 5000]

Seconds of process time, so that other programs hardly count. Boxes are those of seven random objects an image, moved a
little; half of them have a random class.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyrafuse.base.detections import Detections
from pyrafuse.base.records import DetectionData, ImageRecord
from pyrafuse.evaluation.coco import CocoEvaluator
from pyrafuse.evaluation.diagnosis import diagnose

NUM_CLASSES, OBJECTS, FOUND, SIDE = 80, 7, 100, 640


def make(num_images: int) -> tuple[DetectionData, list[Detections]]:
    generator = np.random.default_rng(0)
    records, found = [], []
    for number in range(num_images):
        corners = generator.uniform(0, SIDE - 120, (OBJECTS, 2))
        boxes = np.concatenate((corners, corners + generator.uniform(8, 120, (OBJECTS, 2))), axis=1).astype(np.float32)
        labels = generator.integers(0, NUM_CLASSES, OBJECTS)
        crowd, areas = np.zeros(OBJECTS, np.bool_), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        records.append(ImageRecord(Path(f"{number}.jpg"), number, SIDE, SIDE, boxes, labels, crowd, areas))
        rows = generator.integers(0, OBJECTS, FOUND)
        moved = boxes[rows] + generator.normal(0, 6, (FOUND, 4)).astype(np.float32)
        kinds = np.where(generator.random(FOUND) < 0.5, labels[rows], generator.integers(0, NUM_CLASSES, FOUND))
        scores = generator.random(FOUND).astype(np.float32)
        found.append(Detections(moved, scores, kinds, np.zeros(FOUND, np.int64), image_size=(SIDE, SIDE)))
    names = tuple(f"class {number}" for number in range(NUM_CLASSES))
    return DetectionData(tuple(records), names, tuple(range(NUM_CLASSES)), "coco", "val"), found


def tell(what: str, work: Callable[[], object]) -> None:
    start = time.process_time()
    work()
    print(f"{what:<42} {time.process_time() - start:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    data, found = make(arguments.images)
    evaluator = CocoEvaluator(data)
    tell("taking in, batches of 8", lambda: take_in(evaluator, found))
    tell("figures, confusion and worst images", evaluator.compute)
    tell("errors by kind, F1 and calibration", lambda: diagnose(evaluator))


def take_in(evaluator: CocoEvaluator, found: list[Detections]) -> None:
    for first in range(0, len(found), 8):
        part = found[first : first + 8]
        evaluator.update(range(first, first + len(part)), part)


if __name__ == "__main__":
    main()
