"""Predictions as numbers: one JSON, COCO results, YOLO text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyrafuse.base.detections import Detections
from pyrafuse.base.writing import write_text
from pyrafuse.inference.writers.registry import WRITERS, Destination, Finding, Writer


@WRITERS.register("yolo")
class YOLOWriter(Writer):
    """Writes ``labels/*.txt``, one file a frame, empty where nothing was found."""

    def __init__(self, destination: Destination) -> None:
        self._places = destination.places("labels")

    def write(self, finding: Finding) -> None:
        write_text(self._places.choose(finding.detections.source, ".txt"), finding.detections.to_yolo())


@WRITERS.register("json")
class JSONWriter(Writer):
    """Writes ``predictions.json``: an object an image, with the names, boxes (xyxy, pixels), scores and levels."""

    def __init__(self, destination: Destination) -> None:
        self._path = destination.folder / "predictions.json"
        self._images: list[dict[str, Any]] = []

    def write(self, finding: Finding) -> None:
        self._images.append(finding.detections.to_dict())

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if self._images:
            write_text(self._path, json.dumps({"images": self._images}, indent=1))


@WRITERS.register("coco")
class COCOWriter(Writer):
    """Writes ``coco_results.json``, which COCO's evaluation reads.

    An image's id is the number its file is named by, as in COCO itself, if all are named so; else its rank from 0.
    ``file_name`` stands beside it.
    """

    def __init__(self, destination: Destination) -> None:
        self._path = destination.folder / "coco_results.json"
        self._category_ids = destination.category_ids
        self._findings: list[tuple[int, Detections]] = []

    def write(self, finding: Finding) -> None:
        # without its pixels: all results are held until the end
        self._findings.append((finding.index, replace(finding.detections, image=None)))

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if not self._findings:
            return
        stems = [Path(found.source).stem for _, found in self._findings]
        is_numbered = all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(stems)
        rows = [
            {
                "image_id": int(stem) if is_numbered else index,
                "file_name": found.source,
                "category_id": self._category_ids[label] if label < len(self._category_ids) else label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for stem, (index, found) in zip(stems, self._findings, strict=True)
            for label, score, (x1, y1, x2, y2) in zip(
                found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        write_text(self._path, json.dumps(rows, indent=1))
