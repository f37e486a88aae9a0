"""CVAT's own XML: a file a task, of images or of tracks through a video; file -> named boxes -> records.

The layout is told in CVAT's documentation, "XML annotation format", version 1.1.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from pyrafuse.base.errors import DataError
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.documents import read_head, read_xml_children
from pyrafuse.data.reading.folders import SPLIT_WORDS, Tree, split_of_file, split_of_folder
from pyrafuse.data.reading.hulls import NO_BOX, Box, box_of_points
from pyrafuse.data.reading.joining import join_readings
from pyrafuse.data.reading.named_boxes import NamedBox, NamedImage, read_named_boxes, tell_without_box
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, PIXEL_CORNERS
from pyrafuse.data.writing.encoding import encode_split, spell_number
from pyrafuse.data.writing.layouts import BARE_CLASSES, FRACTIONS, PlacedSplit, Writing

_WITH_BOX = {"box", "ellipse", "mask", "polygon", "cuboid"}
MAX_BETWEEN = 1_000_000
"""Boxes that may be put between those of the tracks of a file."""
_NO_SHAPE = {"attribute", "tag"}
_IS_CVAT = re.compile(r"<annotations\b[^>]*>\s*<(version|meta|image|track)\b")


@dataclass
class _Part:
    """What one file holds of one split."""

    images: dict[str, NamedImage] = field(default_factory=dict)
    objects: list[NamedBox] = field(default_factory=list)
    without_box: Counter[str] = field(default_factory=Counter)
    unkept: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class CVATFile:
    """A file: its classes, and what it holds of each split."""

    path: Path
    names: tuple[str, ...]
    parts: Mapping[str, _Part]


def _write(splits: Sequence[PlacedSplit]) -> Iterator[tuple[str, str]]:
    """One file; splits are subsets, as in the export of a project."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "project"), "labels")
    for name in splits[0].data.names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "type").text = "rectangle"
    images = 0
    for split in splits:
        names, subset = split.data.names, {"subset": split.data.split} if split.data.split else {}
        boxes = encode_split(split.data, PIXEL_CORNERS)
        for record, place, numbers in zip(split.data.records, split.places, boxes, strict=True):
            name, sides = place.rpartition("/")[2], {"width": str(record.width), "height": str(record.height)}
            image = ElementTree.SubElement(root, "image", {"id": str(images), "name": name, **subset, **sides})
            images += 1
            for label, box in zip(record.labels.tolist(), numbers, strict=True):
                corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(spell_number, box), strict=True))
                ElementTree.SubElement(image, "box", label=names[label], occluded="0", **corners, z_order="0")
    ElementTree.indent(root, " ")
    yield "annotations.xml", f"{ElementTree.tostring(root, encoding='unicode', xml_declaration=False)}\n"


@FORMATS.register("cvat")
class CVATFormat(AnnotationFormat):
    """CVAT for images 1.1 and CVAT for video 1.1, told by the root element."""

    title = "CVAT XML"
    looked_for = "CVAT XML (annotations.xml beside images/)"
    rank = 40

    writing = Writing(texts=_write, image_folder="images/{split}", keeps=frozenset({FRACTIONS, BARE_CLASSES}))

    def open(self, file: Path) -> DataSet | None:
        return _data_set(file, Tree(file.parent), [file]) if _is_cvat(file) else None

    def find(self, tree: Tree) -> DataSet | None:
        files = [path for path in tree.named(".xml") if _is_cvat(path)]
        return _data_set(tree.root, tree, files) if files else None


def _is_cvat(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and _IS_CVAT.search(read_head(path)) is not None


def _data_set(path: Path, tree: Tree, files: Sequence[Path]) -> DataSet:
    parts: dict[str, list[CVATFile]] = defaultdict(list)
    for file in files:
        read = read_file(file, tree)
        for split in read.parts:
            parts[split].append(read)
    readers = {split: partial(read_cvat, listed, split, tree) for split, listed in parts.items()}
    return DataSet(path, readers, tree)


def read_cvat(files: Sequence[CVATFile], split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read what ``files`` hold of ``split``."""
    readings = []
    for file in files:
        part = file.parts[split]
        reading = read_named_boxes(
            part.objects, file=file.path, tree=tree, split=split, names=file.names, images=part.images.values(),
            rules=rules, unkept=part.unkept,
        )  # fmt: skip
        problems = (*part.problems, *tell_without_box(part.without_box, file.path), *reading.problems)
        readings.append(Reading(reading.data, problems, unkept=reading.unkept))
    return join_readings(readings)


def read_file(path: Path, tree: Tree) -> CVATFile:
    """Read a file into its splits: those that its images name as subset, else that of its own name or folder.

    Raises:
        DataError: If it is no complete XML, or declares a document type.
    """
    own = split_of_file(path.stem) or split_of_folder(path.parent, tree.root)
    names: tuple[str, ...] = ()
    frames: tuple[int, int, int] | None = None
    parts: dict[str, _Part] = defaultdict(_Part)
    tracks: dict[str, list[_Track]] = defaultdict(list)
    tasks = set()
    for element in read_xml_children(path):
        subset = element.get("subset", "")
        split = SPLIT_WORDS.get(subset.casefold(), "" if subset.casefold() == "default" else subset) or own
        if element.tag == "meta":
            names, frames = _read_names(element), _read_frames(element)
        elif element.tag == "image":
            _read_image(element, subset, parts[split])
        elif element.tag == "track":
            shapes = tuple(_read_shape(child) for child in element if child.tag not in _NO_SHAPE)
            tracks[split].append(_Track(element.get("id", ""), element.get("label", ""), shapes))
            tasks.add(element.get("task_id"))
    if len(tasks) > 1:
        raise DataError(
            f"{path} holds tracks of {len(tasks)} tasks, whose frames have the same numbers; export each task by itself"
        )
    pictures = _pictures_of_frames(path, tree) if tracks else {}
    for split, of_split in tracks.items():
        _read_tracks(of_split, frames, path, pictures, parts[split])
    return CVATFile(path, names, dict(parts or {own: _Part()}))


def _read_names(meta: ElementTree.Element) -> tuple[str, ...]:
    """The classes that shapes can have, in order: no tags, and no points of a skeleton."""
    labels = [label for label in meta.iter("label") if label.find("parent") is None]
    shaped = [
        label for label in labels if (label.findtext("type") or "any").strip() not in {"tag", "points", "polyline"}
    ]
    return tuple(dict.fromkeys(name for label in shaped if (name := (label.findtext("name") or "").strip())))


@dataclass(frozen=True)
class _Shape:
    """A shape: its box, NaN for none, where they are from, radians, and its frame, if it is one of a track."""

    kind: str
    box: Box
    source: int = BOX
    angle: float = 0.0
    frame: int = -1
    is_outside: bool = False
    num_attributes: int = 0


@dataclass(frozen=True)
class _Track:
    """One object through a video."""

    number: str
    label: str
    shapes: tuple[_Shape, ...]


def _read_image(element: ElementTree.Element, subset: str, part: _Part) -> None:
    name = element.get("name", "")
    place = f"{subset}/{name}" if subset else name
    if not name:
        return
    width, height = _pixels(element.get("width")), _pixels(element.get("height"))
    part.images[place] = NamedImage(place, width, height, (place, name))
    for rank, child in enumerate(element):
        if child.tag in _NO_SHAPE:
            part.unkept["tags of images"] += child.tag == "tag"
            continue
        shape = _read_shape(child)
        _add(part, place, child.get("label", ""), shape, f"{child.tag} {rank} of image {element.get('id', name)}")


def _read_shape(element: ElementTree.Element) -> _Shape:
    def number(key: str) -> float:
        return _number(element.get(key))

    angle, source = math.radians(_number(element.get("rotation"), 0.0)), OUTLINE
    if not math.isfinite(angle):
        return _Shape(element.tag, NO_BOX)
    if element.tag == "box":
        box, source = (number("xtl"), number("ytl"), number("xbr"), number("ybr")), BOX
    elif element.tag == "ellipse":
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = math.hypot(number("rx") * cos, number("ry") * sin), math.hypot(number("rx") * sin, number("ry") * cos)
        box, angle = (number("cx") - x, number("cy") - y, number("cx") + x, number("cy") + y), 0.0
    elif element.tag == "mask":  # its runs fill the rectangle to all four sides
        left, top = number("left"), number("top")
        box = (left, top, left + number("width"), top + number("height"))
    else:  # a cuboid has two numbers for each of eight corners
        corners = [value for key, value in element.items() if re.fullmatch(r"[xy][tb][lr]\d", key)]
        box = box_of_points(_points(",".join(corners) or element.get("points", "")))
    frame = number("frame")
    return _Shape(
        kind=element.tag,
        box=box,
        source=source,
        angle=angle if source == BOX else 0.0,
        frame=int(frame) if math.isfinite(frame) else -1,
        is_outside=element.get("outside") == "1",
        num_attributes=len(element.findall("attribute")),
    )


def _add(part: _Part, image: str, label: str, shape: _Shape, record: str) -> None:
    if shape.kind in _WITH_BOX:
        part.objects.append(NamedBox(image, label, shape.box, record, shape.source, shape.angle))
        part.unkept["attributes of objects"] += shape.num_attributes
        part.unkept["rotated boxes"] += shape.angle != 0
        part.unkept["outlines"] += shape.source == OUTLINE
    else:
        part.without_box[shape.kind] += 1


def _read_frames(meta: ElementTree.Element) -> tuple[int, int, int] | None:
    """First frame, last frame and step of a video's task."""
    start, stop = _number(meta.findtext(".//start_frame")), _number(meta.findtext(".//stop_frame"))
    step = re.search(r"step\s*=\s*(\d+)", meta.findtext(".//frame_filter") or "")
    if not (math.isfinite(start) and math.isfinite(stop)):
        return None
    return int(start), int(stop), max(int(step[1]) if step else 1, 1)


def _read_tracks(
    tracks: Sequence[_Track], frames: tuple[int, int, int] | None, path: Path, pictures: Mapping[int, str], part: _Part
) -> None:
    """The boxes of each frame. Between two frames of a track that are not next to each other, boxes move evenly."""
    first, last, step = frames or (0, -1, 1)
    part.images.update({name: NamedImage(name) for n, name in sorted(pictures.items()) if first <= n <= last})
    num_between, gaps = 0, Counter[str]()
    for track in tracks:
        shown = sorted((shape for shape in track.shapes if shape.frame >= 0), key=lambda shape: shape.frame)
        between = []
        for one, other in pairwise(shown):
            if one.is_outside or other.frame - one.frame <= step:
                continue
            if num_between + len(between) + (other.frame - one.frame) // step > MAX_BETWEEN:
                raise DataError(
                    f"{path}, track {track.number}: after frame {one.frame} comes a box of frame {other.frame}, and "
                    f"more than {MAX_BETWEEN:,} boxes would lie between those of the tracks: correct the frame, "
                    "end the track, or export fewer tasks at once"
                )
            if one.kind == other.kind == "box" and one.angle == other.angle:
                between += [_move(one, other, n) for n in range(one.frame + step, other.frame, step)]
            else:
                gaps[track.number] += 1
        num_between += len(between)
        for shape in sorted([*shown, *between], key=lambda shape: shape.frame):
            if not shape.is_outside:
                name = pictures.get(shape.frame, f"frame_{shape.frame:06d}")
                part.images.setdefault(name, NamedImage(name))
                _add(part, name, track.label, shape, f"frame {shape.frame} of track {track.number}")
    part.unkept["tracks"] += len(tracks)
    if num_between:
        part.problems.append(
            Problem("note", "boxes between the frames of a track", path, "",
                    f"{num_between} boxes of frames that a track leaves out",
                    "put between the boxes before and after, moving evenly, as CVAT shows them")
        )  # fmt: skip
    if gaps:
        part.problems.append(
            Problem("warning", "frames that a track leaves out", path, f"track {next(iter(gaps))}",
                    f"{gaps.total()} gaps in {len(gaps)} tracks of outlines or rotated boxes; this is the first",
                    "the object is in no frame of the gap; export all frames from CVAT")
        )  # fmt: skip


def _move(one: _Shape, other: _Shape, frame: int) -> _Shape:
    share = (frame - one.frame) / (other.frame - one.frame)
    x1, y1, x2, y2 = (a + share * (b - a) for a, b in zip(one.box, other.box, strict=True))
    return _Shape("box", (x1, y1, x2, y2), BOX, one.angle, frame)


def _pictures_of_frames(path: Path, tree: Tree) -> dict[int, str]:
    """The picture of each frame, by the last number in its name, where one picture alone below the file has it."""
    named: dict[int, list[Path]] = defaultdict(list)
    for image in tree.images:
        if image.is_relative_to(path.parent) and (numbers := re.findall(r"\d+", image.stem)):
            named[int(numbers[-1])].append(image)
    return {n: found[0].relative_to(path.parent).as_posix() for n, found in named.items() if len(found) == 1}


def _points(text: str) -> list[float]:
    """The numbers of ``1,2;3,4``; empty where one is none."""
    numbers = [_number(word) for word in text.replace(";", ",").split(",") if word.strip()]
    return numbers if all(map(math.isfinite, numbers)) else []


def _number(text: str | None, default: float = math.nan) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default


def _pixels(text: str | None) -> int:
    value = _number(text)
    return int(value) if 0 < value < 2**31 else 0
