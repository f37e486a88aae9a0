"""COCO average precision: detections of a data set -> `EvaluationResult`.

Lin et al., "Microsoft COCO", arXiv:1405.0312. The figures are faster-coco-eval's, which equal pycocotools'.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from pyrafuse.base.arrays import to_numpy
from pyrafuse.base.detections import Detections
from pyrafuse.base.errors import DataError, check_count
from pyrafuse.base.records import DetectionData
from pyrafuse.evaluation.faults import find_worst
from pyrafuse.evaluation.matching import (
    IN_CROWD,
    Truth,
    count_confusions,
    find_best_confidence,
    judge_detections,
    match_greedily,
)
from pyrafuse.evaluation.result import COCO_DETECTIONS, ClassResult, EvaluationResult, SizeResult

EVALUATION_SCORE = 0.001
"""Average precision asks for unlikely detections too; the published figures of ASFF were measured with this one."""

FALLBACK_CONFIDENCE = 0.25

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""Areas in square pixels from which on, and below which, an object has a size."""


class CocoEvaluator:
    """Collects detections image by image, and judges them against ``data``.

    Images that were never given count as images in which nothing was found. An image given twice, as the padding of a
    distributed sampler does, counts once.

    Args:
        data: What to compare with.
        max_detections: Maximum number of detections counted per image and class, the best first; COCO counts 100.

    Raises:
        PyrafuseError: If ``max_detections`` is no whole number from 1 up.
    """

    def __init__(self, data: DetectionData, *, max_detections: int = COCO_DETECTIONS) -> None:
        check_count("max_detections", max_detections, 1)
        self.data = data
        self.max_detections = max_detections
        self._found: dict[int, NDArray[np.float64]] = {}

    def update(self, indices: Iterable[int], detections: Sequence[Detections]) -> None:
        """Take the detections of images.

        Args:
            indices: Row of each image in ``data.records``.
            detections: What was found in each, boxes in pixels of the image itself.

        Raises:
            DataError: If an image or class is unknown to ``data``, or a box or score is not finite.
        """
        images = [int(i) for i in indices]
        counts = [len(found) for found in detections]
        owners = np.repeat(np.asarray(images, dtype=np.float64), counts)
        parts = [np.column_stack(list(map(to_numpy, (d.boxes, d.scores, d.labels, d.levels)))) for d in detections]
        rows = np.column_stack([owners, np.concatenate(parts) if parts else np.zeros((0, 7))])
        self._check(np.asarray(images, dtype=np.int64), rows)
        for image, part in zip(images, np.split(rows, np.cumsum(counts)[:-1]) if counts else [], strict=True):
            self._found.setdefault(image, part)

    def rows(self) -> NDArray[np.float64]:
        """All detections so far, (N, 8): image row, x1, y1, x2, y2, score, label, level; in order of the images."""
        parts = [self._found[image] for image in sorted(self._found)]
        return np.concatenate(parts) if parts else np.zeros((0, 8))

    def merge(self, rows: NDArray[np.floating[Any]]) -> None:
        """Add the ``rows()`` of one other evaluator; images known here already are left as they are."""
        rows = np.asarray(rows, dtype=np.float64).reshape(-1, 8)
        images = rows[:, 0].astype(np.int64)
        self._check(images, rows)
        order = np.argsort(images, kind="stable")
        known, starts = np.unique(images[order], return_index=True)
        for image, part in zip(known.tolist(), np.split(rows[order], starts[1:]), strict=False):
            self._found.setdefault(image, part)

    def compute(self) -> EvaluationResult:
        """Judge everything collected so far; may be called again after more `update`s."""
        found, truth, names = self.rows(), Truth.of(self.data.records), self.data.names
        precision, recall = self._judge(found, truth)
        found_images, found_labels = found[:, 0].astype(np.int64), found[:, 6].astype(np.int64)
        matches = match_greedily(
            found_images * len(names) + found_labels, found[:, 1:5], found[:, 5],
            truth.images * len(names) + truth.labels, truth.boxes, truth.crowd,
        )  # fmt: skip
        counted, is_right, is_object = matches != IN_CROWD, matches >= 0, ~truth.crowd
        best = find_best_confidence(found[counted, 5], is_right[counted], int(is_object.sum()))
        confidence = FALLBACK_CONFIDENCE if np.isnan(best.confidence) else best.confidence
        outcome = judge_detections(found, matches, truth, confidence=confidence)

        classes = []
        for k, name in enumerate(names):
            rows = counted & (found_labels == k)
            objects = is_object & (truth.labels == k)
            classes.append(
                ClassResult(
                    name=name,
                    ap=_mean(precision[:, :, k, 0, 2]),
                    ap50=_mean(precision[0, :, k, 0, 2]),
                    ar_100=_mean(recall[:, k, 0, 2]),
                    num_objects=int(objects.sum()),
                    num_images=len(np.unique(truth.images[objects])),
                    best=find_best_confidence(found[rows, 5], is_right[rows], int(objects.sum())),
                    ap75=_mean(precision[5, :, k, 0, 2]),
                    ap_small=_mean(precision[:, :, k, 1, 2]),
                    ap_medium=_mean(precision[:, :, k, 2, 2]),
                    ap_large=_mean(precision[:, :, k, 3, 2]),
                )
            )
        sizes = [
            SizeResult(
                name=name,
                ap=_mean(precision[:, :, :, a, 2]),
                ar_100=_mean(recall[:, :, a, 2]),
                num_objects=int((is_object & (truth.areas >= low) & (truth.areas < high)).sum()),
            )
            for a, (name, (low, high)) in enumerate(SIZES.items(), start=1)
        ]
        return EvaluationResult(
            ap=_mean(precision[:, :, :, 0, 2]),
            ap50=_mean(precision[0, :, :, 0, 2]),
            ap75=_mean(precision[5, :, :, 0, 2]),
            ap_small=sizes[0].ap,
            ap_medium=sizes[1].ap,
            ap_large=sizes[2].ap,
            ar_1=_mean(recall[:, :, 0, 0]),
            ar_10=_mean(recall[:, :, 0, 1]),
            ar_100=_mean(recall[:, :, 0, 2]),
            ar_small=sizes[0].ar_100,
            ar_medium=sizes[1].ar_100,
            ar_large=sizes[2].ar_100,
            num_images=len(self.data.records),
            num_objects=int(is_object.sum()),
            num_detections=len(found),
            best=best,
            classes=tuple(classes),
            sizes=tuple(sizes),
            precision=precision[:, :, :, 0, 2],
            confusion=count_confusions(found, outcome, truth, num_classes=len(names)),
            confusion_confidence=confidence,
            worst=find_worst(found, outcome, truth, self.data.records),
            max_detections=self.max_detections,
        )

    def image_ranks(self) -> NDArray[np.int64]:
        """Rank of each image by its id: pycocotools walks images in that order, which decides between equal scores."""
        ranks = np.empty(len(self.data.records), dtype=np.int64)
        ranks[np.argsort([r.image_id for r in self.data.records], kind="stable")] = np.arange(len(ranks))
        return ranks

    def _judge(self, found: NDArray[np.float64], truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (10, 101, K, 4 sizes, 3 limits) and recall (10, K, 4, 3), NaN where there is no object."""
        ids = self.image_ranks()
        frame = {
            "images": [{"id": i} for i in range(len(ids))],
            "categories": [{"id": k, "name": name} for k, name in enumerate(self.data.names)],
        }
        found_areas = (found[:, 3:5] - found[:, 1:3]).prod(axis=1)
        objects = _annotations(
            ids[truth.images], truth.labels, truth.boxes, truth.areas, iscrowd=truth.crowd.astype(np.int64)
        )
        guesses = _annotations(
            ids[found[:, 0].astype(np.int64)], found[:, 6].astype(np.int64), found[:, 1:5], found_areas,
            score=found[:, 5], iscrowd=np.zeros(len(found), dtype=np.int64),
        )  # fmt: skip
        judge = COCOeval_faster(
            COCO({**frame, "annotations": objects}), COCO({**frame, "annotations": guesses}), "bbox"
        )
        judge.params.maxDets = [min(limit, self.max_detections) for limit in (1, 10)] + [self.max_detections]
        judge.evaluate()
        judge.accumulate()
        precision, recall = (np.asarray(judge.eval[key], dtype=np.float64) for key in ("precision", "recall"))
        return np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall)

    def _check(self, images: NDArray[np.int64], rows: NDArray[np.float64]) -> None:
        num_images, num_classes = len(self.data.records), len(self.data.names)
        strangers = images[(images < 0) | (images >= num_images)]
        if len(strangers):
            raise DataError(
                f"detections of image row {strangers[0]}, but the {self.data.split} split has {num_images} images: "
                "evaluate with the data set that was predicted on"
            )
        unknown = rows[(rows[:, 6] < 0) | (rows[:, 6] >= num_classes)]
        if len(unknown):
            raise DataError(
                f"{self.data.records[int(unknown[0, 0])].path}: a detection of class {int(unknown[0, 6])}, but the "
                f"data set has {num_classes} classes: evaluate with the classes that the model was trained on"
            )
        broken = rows[~np.isfinite(rows[:, 1:6]).all(axis=1)]
        if len(broken):
            raise DataError(
                f"{self.data.records[int(broken[0, 0])].path}: a detection with box {broken[0, 1:5].tolist()} and "
                f"score {broken[0, 5]}: the model has diverged; use an earlier checkpoint or a lower learning rate"
            )


def to_coco_results(evaluator: CocoEvaluator) -> str:
    """Everything that was found as COCO results, JSON, with the ids of the data and the name of each category."""
    data = evaluator.data
    rows: list[dict[str, Any]] = []
    for image, x1, y1, x2, y2, score, label, _ in evaluator.rows().tolist():
        rows.append(
            {
                "image_id": data.records[int(image)].image_id,
                "category_id": data.category_ids[int(label)],
                "category_name": data.names[int(label)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
        )
    return json.dumps(rows)


def _annotations(
    images: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes: NDArray[np.float64],
    areas: NDArray[np.float64],
    **more: NDArray[Any],
) -> list[dict[str, Any]]:
    """Rows as the dicts of COCO; ids start at 1 because 0 means "unmatched" to the evaluation."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    columns = {
        "id": range(1, len(images) + 1),
        "image_id": images.tolist(),
        "category_id": labels.tolist(),
        "bbox": np.column_stack([boxes[:, :2], sizes]).tolist(),
        "area": areas.tolist(),
        **{key: values.tolist() for key, values in more.items()},
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
