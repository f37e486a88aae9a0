"""Label Studio's JSON and JSON-MIN: a list of tasks, boxes in percent of the image; tasks -> named boxes -> records.

The layout is told in Label Studio's documentation, "Task format" and "RectangleLabels".
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.documents import as_float, read_head, read_json, shorten
from pyrafuse.data.reading.folders import Tree, split_of_file, split_of_folder
from pyrafuse.data.reading.hulls import NO_BOX, Box, box_of_points
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.named_boxes import NamedBox, NamedImage, read_named_boxes, tell_without_box
from pyrafuse.data.reading.names import split_name
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, ROTATED

_WRITTEN = BoxFormat("percent", "sizes")
_IS_TASKS = (
    re.compile(r'\A\s*\[\s*\{.*"data"\s*:\s*\{.*"(annotations|completions|predictions)"\s*:\s*\[', re.DOTALL),
    re.compile(r'\A\s*\[\s*\{.*"(annotations|completions|predictions)"\s*:\s*\[.*"data"\s*:\s*\{', re.DOTALL),
    re.compile(r'\A\s*\[\s*\{.*"(rectangle|polygon|ellipse|brush)labels"\s*:', re.DOTALL),
)
_BOXES = {"rectanglelabels", "rectangle"}
_OUTLINES = {"polygonlabels", "polygon", "ellipselabels", "ellipse"}
_NAMES = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels", "brushlabels", "keypointlabels")


@dataclass
class _Content:
    """What a file holds."""

    images: list[NamedImage] = field(default_factory=list)
    objects: list[NamedBox] = field(default_factory=list)
    without_box: Counter[str] = field(default_factory=Counter)
    unkept: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[str]] = field(default_factory=dict)


@FORMATS.register("label_studio")
class LabelStudioFormat(AnnotationFormat):
    """Label Studio's JSON and JSON-MIN, told by a list of tasks."""

    title = "Label Studio JSON"
    looked_for = "Label Studio JSON (project-1-at-2026-11-30.json beside the images)"
    rank = 50

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), {"": [file]}) if _is_tasks(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        splits: dict[str, list[Path]] = {}
        for path in filter(_is_tasks, tree.named(".json")):
            splits.setdefault(split_of_file(path.stem) or split_of_folder(path.parent, tree.root), []).append(path)
        return _data_set(tree.root, tree, splits) if splits else None


def _is_tasks(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    head = read_head(path, 1 << 16)
    return any(pattern.search(head) for pattern in _IS_TASKS)


def _data_set(path: Path, tree: Tree, splits: Mapping[str, Sequence[Path]]) -> DataSet:
    return DataSet(path, {split: partial(read_tasks, files, split, tree) for split, files in splits.items()}, tree)


def read_tasks(files: Sequence[Path], split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read the tasks of ``files``. Of several annotations of one task the one marked as ground truth counts, else the
    last; a task that nobody has annotated is left out, and one whose annotation is empty holds no object.

    Raises:
        DataError: If a file is no complete JSON, or no list of tasks.
    """
    readings = []
    for file in files:
        content = _read_file(file)
        if not content.images:
            raise DataError(
                f"{file} holds no task that was annotated; submit annotations in Label Studio and export anew"
            )
        reading = read_named_boxes(
            content.objects, file=file, tree=tree, split=split, images=content.images, written=_WRITTEN, rules=rules,
            unkept=content.unkept,
        )  # fmt: skip
        problems = [*tell_without_box(content.without_box, file), *_tell_faults(content.faults, file)]
        readings.append(Reading(reading.data, (*problems, *reading.problems), unkept=reading.unkept))
    return join_readings(readings)


_FAULTS = {
    "task without an annotation": ("left out; annotate it, or skip it for good", "were not annotated, or skipped"),
    "task without an image": ("left out; the data of a task need the name of an image", "name no image"),
    "several annotations of one task": ("the one marked as ground truth is taken, else the last", "have several"),
    "region without a label": ("left out; give it a label", "regions have none"),
}


def _tell_faults(faults: Mapping[str, Sequence[str]], file: Path) -> list[Problem]:
    return [
        Problem("warning", kind, file, places[0], f"{len(places)} {_FAULTS[kind][1]}; the first is {places[0]}",
                _FAULTS[kind][0])
        for kind, places in faults.items()
    ]  # fmt: skip


def _read_file(path: Path) -> _Content:
    tasks = read_json(path)
    if not isinstance(tasks, list):
        raise DataError(f"{path} is no list of tasks; export JSON from Label Studio anew")
    content = _Content()
    for rank, task in enumerate(tasks):
        place = f"task {task.get('id', rank)}" if isinstance(task, dict) else f"task {rank}"
        if not isinstance(task, dict):
            raise DataError(f"{path}, {place} is {shorten(task)} and no object; export it anew")
        if isinstance(task.get("data"), dict):
            _read_task(task, place, content)
        else:
            _read_min(task, place, content)
    return content


def _read_task(task: Mapping[str, Any], place: str, content: _Content) -> None:
    given = _as_list(task.get("annotations", task.get("completions")))
    done = [
        a for a in given if isinstance(a, dict) and not a.get("was_cancelled") and isinstance(a.get("result"), list)
    ]
    image = _image_of(task["data"])
    content.unkept["predictions"] += len(_as_list(task.get("predictions")))
    if not done or not image:
        content.faults.setdefault("task without an image" if done else "task without an annotation", []).append(place)
        return
    if len(done) > 1:
        content.faults.setdefault("several annotations of one task", []).append(place)
    best = max(done, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or a.get("created_at") or "")))
    regions: dict[str, dict[str, Any]] = {}
    for rank, result in enumerate(best["result"]):
        if isinstance(result, dict) and isinstance(result.get("value"), dict):  # a box and its label may stand apart
            value = {**result, "type": result.get("type", ""), **result["value"]}
            key = str(result.get("id", rank))
            known = regions.setdefault(key, {})
            is_shape = "x" in value or "points" in value or "rle" in value
            kind = value["type"] if is_shape or "type" not in known else known["type"]
            regions[key] = {**known, **value, "type": kind}
    _add(image, [*regions.values()], place, content)


def _read_min(task: Mapping[str, Any], place: str, content: _Content) -> None:
    """A task of JSON-MIN: names of the labelling interface beside data, a list of regions under one of them."""
    image = _image_of(task)
    if not image:
        content.faults.setdefault("task without an image", []).append(place)
        return
    lists = [value for value in task.values() if isinstance(value, list)]
    regions = [region for value in lists for region in value if isinstance(region, dict)]
    _add(
        image, [{**region, "type": next((k for k in _NAMES if k in region), "")} for region in regions], place, content
    )


def _image_of(data: Mapping[str, Any]) -> str:
    """The name of the image among a task's data: under ``image``, else the first text that is a path or a URL."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value.strip()}
    looks = (v for v in texts.values() if re.search(r"\.(jpe?g|png|bmp|webp|tiff?|gif|jfif|heic|avif)\b", v.lower()))
    return texts.get("image") or texts.get("img") or next(looks, "")


def _add(image: str, regions: Sequence[Mapping[str, Any]], place: str, content: _Content) -> None:
    width = next((w for region in regions if (w := _whole(region.get("original_width")))), 0)
    height = next((h for region in regions if (h := _whole(region.get("original_height")))), 0)
    uploaded = split_name(image)[-1:] if image.startswith("/data/") else ()  # the folder is Label Studio's own
    content.images.append(NamedImage(image, width, height, (*uploaded, image)))
    for rank, region in enumerate(regions):
        record = f"region {region.get('id', rank)} of {place}"
        kind = str(region.get("type", ""))
        if kind not in _BOXES | _OUTLINES and not (kind == "labels" and "width" in region):
            if kind in {"brushlabels", "brush", "keypointlabels", "keypoint", "vectorlabels"}:
                content.without_box[kind] += 1
            else:
                content.unkept["choices and texts"] += bool(kind)
            continue
        box, source, angle = _read_shape(region, width, height)
        labels = [str(label) for key in _NAMES for label in _as_list(region.get(key))]
        if not labels:
            content.faults.setdefault("region without a label", []).append(record)
        content.unkept["rotated boxes"] += source == ROTATED
        content.unkept["outlines"] += source == OUTLINE
        content.objects += [NamedBox(image, label, box, record, source, angle) for label in dict.fromkeys(labels)]


def _read_shape(region: Mapping[str, Any], width: int, height: int) -> tuple[Box, int, float]:
    """The four numbers in percent, where they are from, and radians."""
    angle = math.radians(_number(region.get("rotation"), 0.0))
    if not math.isfinite(angle):
        return NO_BOX, ROTATED, 0.0
    if "points" in region:
        points = region["points"] if isinstance(region["points"], list) else []
        return box_of_points([_number(v) for point in points for v in _as_list(point)]), OUTLINE, 0.0
    if "radiusX" in region:
        x, y, rx, ry = (_number(region.get(key)) for key in ("x", "y", "radiusX", "radiusY"))
        return (x - rx, y - ry, x + rx, y + ry), ROTATED if angle else OUTLINE, angle
    x, y, w, h = (_number(region.get(key)) for key in ("x", "y", "width", "height"))
    if abs(math.sin(angle)) < 1e-9 and math.cos(angle) > 0:
        return (x, y, w, h), BOX, 0.0
    # about its corner it cannot be turned without the sides of the image
    if not (width and height) or not all(abs(value) < 1e12 for value in (x, y, w, h)):
        return NO_BOX, ROTATED, angle
    scale = np.array([width, height]) / 100
    half = np.array([w, h]) * scale / 2
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    center = np.array([x, y]) + turn @ half / scale
    x1, y1, x2, y2 = np.concatenate([center - half / scale, center + half / scale]).tolist()
    return (x1, y1, x2, y2), ROTATED, angle


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value in (None, "") else [value]


def _number(value: Any, default: float = math.nan) -> float:
    return as_float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0
