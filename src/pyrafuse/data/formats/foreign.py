"""Annotation files of other tools, told by their first bytes: what they are, and what to export instead."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pyrafuse.data.reading.documents import read_ends
from pyrafuse.data.reading.folders import Tree

_FEW = 20
"""So many files of each suffix are looked at in a folder: a tool writes all alike."""

_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


def _has(*patterns: str) -> Callable[[str], bool]:
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda text: all(pattern.search(text) for pattern in compiled)


def _line(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text.lstrip().partition("\n")[0].strip()) is not None


_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_LIST, _OBJECT = r"\A\s*\[", r"\A\s*\{"
_VIA = "in VIA, choose Annotation, Export Annotations (COCO format)"
_KINDS: tuple[tuple[tuple[str, ...], Callable[[str], bool], str, str], ...] = (
    ((".json",), _has(_LIST, r'"(image_id|category_id)"', r'"score"\s*:'), "COCO results and no annotations",
     "name the annotation file that they belong to"),
    ((".json",), _has(_OBJECT, r'"_cls"\s*:|"bounding_box"\s*:'), "FiftyOne's own JSON",
     "export COCODetectionDataset or YOLOv5Dataset from FiftyOne"),
    ((".json",), _has(_LIST, r'"coordinates"\s*:\s*\{'), "CreateML JSON", "export COCO from the tool that wrote it"),
    ((".json",), _has(_LIST, r'"box2d"|"poly2d"'), "BDD100K's or Scalabel's JSON",
     "convert it with `python -m scalabel.label.to_coco`"),
    ((".json", ".ndjson"), _has(r'"data_row"|"Labeled Data"'), "a Labelbox export",
     "convert it to COCO, with Labelbox's converter for instance"),
    ((".json",), _has(_OBJECT, r'"_via_\w+"|"regions"\s*:', r'"file_?name"|"shape_attributes"'), "VIA's own JSON",
     _VIA),
    ((".json",), _has(_OBJECT, r'"asset"\s*:|"assets"\s*:', r'"regions"|"visitedAssetIds"|"lastVisitedAssetId"'),
     "VoTT's own JSON", "in VoTT, choose Pascal VOC as the export format"),
    ((".json",), _has(_OBJECT, r'"classTitle"'), "Supervisely's JSON",
     "export COCO or Pascal VOC from Supervisely's ecosystem"),
    ((".json",), _has(_OBJECT, r'"items"\s*:\s*\[', r'"categories"\s*:\s*\{'), "Datumaro's JSON",
     "convert it with `datum convert -f coco`"),
    ((".manifest", ".json", ".jsonl"), _has(r'"source-ref"'), "a SageMaker Ground Truth manifest",
     "convert it to COCO"),
    ((".csv",), _line(r"(?i).*region_shape_attributes.*"), "VIA's CSV", _VIA),
    ((".csv",), _line(r"(?i).*\b(xmin|x_min|x1|bbox(_x)?)\b.*|(TRAIN|VALIDATION|TEST|UNASSIGNED),.*"),
     "a CSV with boxes, in columns of other names",
     "name the columns filename, class, xmin, ymin, xmax, ymax, or export COCO JSON from the tool that wrote it"),
    ((".txt", ".csv"), _line(r"[^;]+\.\w+(;\d+){4,5}(;\S+)?"), "a box a line with semicolons (GTSDB and others)",
     "convert them to YOLO lines or COCO"),
    ((".txt", ".csv"), _line(rf"\d+,-?\d+(,{_NUMBER}){{4}}(,{_NUMBER}){{1,4}}"), "MOT Challenge boxes",
     "convert them to COCO"),
    ((".tfrecord", ".record", ".tfrecords"), lambda _: True, "TFRecords",
     "export COCO JSON or YOLO from the tool that wrote them"),
    (_ARCHIVES, lambda _: True, "packed files", "unpack it"),
    ((".parquet",), lambda _: True, "a Parquet file, as Hugging Face stores data sets", "convert it to COCO"),
    ((".txt",), _line(rf"\S+ {_NUMBER} \d {_NUMBER}( {_NUMBER}){{11}}"), "KITTI labels",
     "convert them, with `datum convert -f coco` for instance"),
    ((".txt",), _line(rf"{_NUMBER}( {_NUMBER}){{7}} \S*[A-Za-z]\S*( \d)?|imagesource:.*"), "DOTA labels",
     "convert them to YOLO OBB lines: class and eight shares"),
    ((".txt",), _line(rf".*[^\W\d_].* {_NUMBER} {_NUMBER} {_NUMBER} {_NUMBER}"),
     "labels with a class name and corners in pixels (OIDv4 ToolKit)",
     "write YOLO lines instead: class number, then centre, width and height as shares"),
)  # fmt: skip


def recognise(path: Path) -> str | None:
    """What the file is and what to do instead, as the end of a sentence that begins with its name; None if unknown."""
    suffix = path.suffix.lower()
    if not any(suffix in suffixes for suffixes, *_ in _KINDS):
        return None
    text = read_ends(path)
    for suffixes, is_one, name, remedy in _KINDS:
        if suffix in suffixes and is_one(text):
            return f"holds {name}, and that is not read: {remedy}"
    return None


def find_foreign(tree: Tree) -> str | None:
    """The first file below a folder that another tool wrote, in one sentence; None if none is known."""
    samples = _samples(tree, {suffix for suffixes, *_ in _KINDS for suffix in suffixes})
    for path in sorted(samples, key=lambda path: path.suffix.lower() in _ARCHIVES):
        if what := recognise(path):
            return f"{path} {what}"
    return None


def _samples(tree: Tree, suffixes: set[str]) -> Iterable[Path]:
    counts: dict[str, int] = {}
    for path in tree.named(*suffixes):
        suffix = path.suffix.lower()
        counts[suffix] = counts.get(suffix, 0) + 1
        if counts[suffix] <= _FEW:
            yield path
