"""LabelMe's JSON, also X-AnyLabeling's: a file an image, shapes as points; files -> named boxes -> records."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.class_lists import find_class_lists, join_class_lists
from pyrafuse.data.reading.documents import read_ends, read_json
from pyrafuse.data.reading.folders import IMAGE_FOLDERS, Tree, split_of_folder
from pyrafuse.data.reading.hulls import NO_BOX, Box, box_of_points
from pyrafuse.data.reading.named_boxes import NamedBox, NamedImage, read_named_boxes, tell_without_box
from pyrafuse.data.reading.names import without_suffix
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, PIXEL_CORNERS, is_set
from pyrafuse.data.writing.encoding import encode_split
from pyrafuse.data.writing.layouts import ASIDE, BARE_CLASSES, FRACTIONS, PlacedSplit, Writing

_MAX_BYTES = 1 << 29  # a file may hold its picture
_SHAPES, _IMAGE = re.compile(r'"(shapes|imageData)"\s*:'), re.compile(r'"image(Path|Height|Width)"\s*:')


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    yield "labels.txt", "".join(f"{name}\n" for name in ("__ignore__", "_background_", *splits[0].data.names))
    for split in splits:
        boxes = encode_split(split.data, PIXEL_CORNERS)
        for record, place, numbers in zip(split.data.records, split.places, boxes, strict=True):
            shapes = [
                {
                    "label": split.data.names[label], "points": [box[:2], box[2:]], "group_id": None,
                    "shape_type": "rectangle", "flags": {}, **({"difficult": True} if is_aside else {}),
                }
                for label, box, is_aside in zip(record.labels.tolist(), numbers, record.crowd.tolist(), strict=True)
            ]  # fmt: skip
            content = {
                "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": place.rpartition("/")[2],
                "imageData": None, "imageHeight": record.height, "imageWidth": record.width,
            }  # fmt: skip
            yield f"{without_suffix(place)}.json", json.dumps(content, ensure_ascii=False, indent=1)


@FORMATS.register("labelme")
class LabelMeFormat(AnnotationFormat):
    """LabelMe JSON, told by its shapes."""

    title = "LabelMe JSON"
    looked_for = "LabelMe JSON (a file an image, beside it)"
    rank = 60
    set_aside = ("difficult", "if they are to be found, set difficult to false")

    writing = Writing(texts=_write, image_folder="{split}", keeps=frozenset({FRACTIONS, ASIDE, BARE_CLASSES}))

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), [file]) if _is_labelme(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        files = [path for path in tree.named(".json") if _is_labelme(path)]
        return _data_set(tree.root, tree, files) if files else None


def _is_labelme(path: Path) -> bool:
    text = read_ends(path) if path.suffix.lower() == ".json" else ""
    return text.lstrip().startswith("{") and _SHAPES.search(text) is not None and _IMAGE.search(text) is not None


def _data_set(path: Path, tree: Tree, files: Sequence[Path]) -> DataSet:
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[split_of_folder(file.parent, tree.root)].append(file)
    names = join_class_lists(find_class_lists(tree.root, dict.fromkeys(file.parent for file in files)))
    names = tuple(name for name in names if name not in {"__ignore__", "_background_"})  # LabelMe's own labels.txt
    return DataSet(path, {s: partial(read_labelme, listed, s, names, tree) for s, listed in splits.items()}, tree)


def read_labelme(
    files: Sequence[Path], split: str, names: Sequence[str], tree: Tree, rules: ReadingRules = DEFAULT_RULES
) -> Reading:
    """Read the files of a split; shapes of one label and one group are parts of one object."""
    images: list[NamedImage] = []
    objects: list[NamedBox] = []
    problems: list[Problem] = []
    without_box, unkept = Counter[str](), Counter[str]()
    first_without: Path | None = None
    for file in files:
        try:
            content = read_json(file, most=_MAX_BYTES)
            shapes = content.get("shapes") if isinstance(content, dict) else None
            if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
                raise DataError(f"{file} has no list of shapes; save it anew in LabelMe")
        except DataError as error:
            problems.append(
                Problem("error", "unreadable annotation", file, "", str(error), "left out; annotate it anew")
            )
            continue
        image = _list_image(file, content)
        images.append(image)
        found, odd = _read_shapes(shapes, image.name)
        objects += found
        without_box += odd
        first_without = first_without or (file if odd else None)
        unkept["outlines"] += sum(item.source == OUTLINE for item in found)
        unkept["flags and descriptions"] += sum(bool(s.get("flags") or s.get("description")) for s in shapes)
    if not images:
        raise DataError(f"none of {len(files)} LabelMe files can be read; the first: {problems[0]}")
    reading = read_named_boxes(
        objects, file=images[0].file or files[0], tree=tree, split=split, names=names, images=images, rules=rules,
        unkept=unkept,
    )  # fmt: skip
    told = tell_without_box(without_box, first_without or files[0], "and others" if len(files) > 1 else "")
    return Reading(reading.data, (*problems, *told, *reading.problems), unkept=reading.unkept)


def _list_image(file: Path, content: Mapping[str, Any]) -> NamedImage:
    """The image of a file: what its own name says comes first, for ``imagePath`` goes stale when files are renamed."""
    given = str(content.get("imagePath") or "")
    suffix = Path(given.replace("\\", "/")).suffix
    folders = [file.parent, *(file.parent.parent / name for name in IMAGE_FOLDERS)]
    own = [str(folder / f"{file.stem}{suffix}") for folder in folders] if suffix else [file.stem]
    width, height = _whole(content.get("imageWidth")), _whole(content.get("imageHeight"))
    return NamedImage(f"{file.parent}/{file.stem}{suffix}", width, height, (*own, *filter(None, [given])), file)


def _read_shapes(shapes: Sequence[Mapping[str, Any]], image: str) -> tuple[list[NamedBox], Counter[str]]:
    """The objects of an image, and what has no box, by kind."""
    objects: list[NamedBox] = []
    without_box = Counter[str]()
    group_of: dict[tuple[str, str | None], int] = {}
    for rank, shape in enumerate(shapes):
        kind, label = str(shape.get("shape_type") or "polygon"), str(shape.get("label") or "").strip()
        box, source = _read_points(kind, shape.get("points"))
        if kind in {"point", "points", "line", "linestrip"}:
            without_box[kind] += 1
            continue
        record = f"shape {rank} ({label})"
        group = shape.get("group_id")
        key = (label, None if group is None else str(group))
        if source == OUTLINE and key[1] is not None and key in group_of:
            before = objects[group_of[key]]
            joined = (*map(min, before.box[:2], box[:2]), *map(max, before.box[2:], box[2:]))
            objects[group_of[key]] = NamedBox(image, label, joined, before.record, OUTLINE, is_aside=before.is_aside)
            continue
        if source == OUTLINE:
            group_of[key] = len(objects)
        objects.append(NamedBox(image, label, box, record, source, is_aside=is_set(shape.get("difficult"))))
    return objects, without_box


def _read_points(kind: str, points: Any) -> tuple[Box, int]:
    """The corners of a shape, and whether they are a box or that of an outline; NaN where the points are none."""
    try:
        pairs = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError, OverflowError):
        return NO_BOX, BOX
    if kind in {"rectangle", "mask"} and len(pairs) >= 2:
        xs, ys = zip(*pairs, strict=True)
        is_box = kind == "rectangle" and len(pairs) in {2, 4}
        return (min(xs), min(ys), max(xs), max(ys)), BOX if is_box else OUTLINE
    if kind == "circle" and len(pairs) == 2:
        (x, y), edge = pairs[0], math.dist(*pairs)
        return (x - edge, y - edge, x + edge, y + edge), OUTLINE
    return box_of_points([value for pair in pairs for value in pair]), OUTLINE


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0
