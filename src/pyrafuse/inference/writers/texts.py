"""Predictions as numbers: one JSON, COCO results, YOLO text."""

import json
import shutil
from pathlib import Path

from pyrafuse.base.writing import write_atomically, write_text
from pyrafuse.inference.writers.registry import WRITERS, Destination, Finding, Writer
from pyrafuse.inference.writers.spool import Spool


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
        self._destination = destination
        self._path = destination.file("predictions.json")
        self._images = Spool(self._path)

    def write(self, finding: Finding) -> None:
        separator = ",\n  " if self._images.size else "  "
        self._images.add(separator + json.dumps(finding.detections.to_dict(), indent=1).replace("\n", "\n  "))

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if self._images.size:
            with self._images.read() as images, write_atomically(self._destination.claim(self._path)) as stream:
                stream.write(b'{\n "images": [\n')
                shutil.copyfileobj(images, stream)
                stream.write(b"\n ]\n}")

    def discard(self) -> None:
        """Drop what was found."""
        self._images.close()


@WRITERS.register("coco")
class COCOWriter(Writer):
    """Writes ``coco_results.json``, which COCO's evaluation reads.

    An image's id is the number its file is named by, as in COCO itself, if all are named so; else its rank from 0.
    ``file_name`` stands beside it, and ``category_name`` beside the category's id.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._path = destination.file("coco_results.json")
        self._rows = Spool(self._path)
        self._num_findings = 0
        # None once a file is named otherwise, or as another one
        self._numbers: set[int] | None = set() if destination.ids_by_name else None

    def write(self, finding: Finding) -> None:
        found, ids, stem = finding.detections, self._destination.category_ids, Path(finding.detections.source).stem
        self._num_findings += 1
        if self._numbers is not None:
            if not stem.isdecimal() or int(stem) in self._numbers:
                self._numbers = None
            else:
                self._numbers.add(int(stem))
        for label, score, (x1, y1, x2, y2) in zip(
            found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
        ):
            row = {
                "file_name": found.source,
                "category_id": ids[label] if label < len(ids) else label + 1,
                **({"category_name": found.names[label]} if found.names else {}),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            self._rows.add(json.dumps([finding.index, row]) + "\n")

    def close(self) -> None:
        """Write the file, whole or not at all; none of nothing, which an interrupt before the first image leaves."""
        if not self._num_findings:
            return
        with self._rows.read() as lines, write_atomically(self._destination.claim(self._path), "w") as stream:
            separator = "[\n "
            for line in lines:
                index, row = json.loads(line)
                image_id = index if self._numbers is None else int(Path(row["file_name"]).stem)
                text = json.dumps({"image_id": image_id, **row}, indent=1)
                stream.write(separator + text.replace("\n", "\n "))
                separator = ",\n "
            stream.write("\n]" if self._rows.size else "[]")

    def discard(self) -> None:
        """Drop what was found."""
        self._rows.close()
