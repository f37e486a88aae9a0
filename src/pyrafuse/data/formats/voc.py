"""Pascal VOC: an XML file an image, corners 1-based and inclusive; files -> listed images + objects -> records.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pyrafuse.base.errors import DataError, same_but_for_case
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.formats.voc_lists import find_lists, read_list_of_names
from pyrafuse.data.formats.voc_writing import VOC_WRITING
from pyrafuse.data.reading.assembling import assemble
from pyrafuse.data.reading.class_lists import find_class_lists, join_class_lists
from pyrafuse.data.reading.documents import check_bytes, parse_xml
from pyrafuse.data.reading.finding import image_finder
from pyrafuse.data.reading.folders import IMAGE_FOLDERS, Tree, split_of_folder, subfolders
from pyrafuse.data.reading.hulls import NO_BOX, Box, are_radians, box_of_points
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, BoxFormat, ReadingRules
from pyrafuse.data.reading.tables import BOX, OUTLINE, ROTATED, ObjectTable, is_set

_WRITTEN = BoxFormat("pixels", "corners", is_one_based=True)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_HEAD_BYTES = 1 << 14
_MAX_BYTES = 1 << 28
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_FIRST_TAG = re.compile(rb"<([a-zA-Z_][^\s/>]*)")
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)""")


@dataclass(frozen=True)
class VOCObject:
    """An object as its XML has it.

    Attributes:
        name: Its class.
        box: xmin, ymin, xmax, ymax as they are written, NaN where unreadable; 0-based corners if not of a bndbox.
        is_difficult: Whether it counts neither as found nor as missed.
        source: `BOX` for a bndbox, `OUTLINE` for a polygon, `ROTATED` for a robndbox.
        rotation: CVAT's attribute, in degrees.
        angle: Angle of a robndbox, in the unit of the file.
        has_more: Whether it has a pose, parts, attributes, or is truncated or occluded.
    """

    name: str
    box: Box
    is_difficult: bool
    source: int = BOX
    rotation: float = 0.0
    angle: float = 0.0
    has_more: bool = False


@dataclass(frozen=True)
class VOCFile:
    """An XML file: the image it speaks of, the size it gives (0 if none) and the objects; or why it can't be read."""

    path: Path
    image_name: str
    width: int
    height: int
    objects: tuple[VOCObject, ...]
    error: str = ""


@dataclass(frozen=True)
class VOCFolder:
    """A whole VOC data set.

    Attributes:
        splits: The XML files of each split; ``""`` where nothing names one.
        names: The classes: those of classes.txt or labels.txt, else all that occur, sorted.
    """

    splits: Mapping[str, tuple[VOCFile, ...]]
    names: tuple[str, ...]


@FORMATS.register("voc")
class VOCFormat(AnnotationFormat):
    """Pascal VOC, told by the root element of its XML files."""

    title = "Pascal VOC"
    looked_for = "Pascal VOC (Annotations/*.xml, or XML files beside the images)"
    rank = 20
    set_aside = ("difficult", "if they are to be found, set <difficult> to 0")
    writing = VOC_WRITING

    def find(self, tree: Tree) -> DataSet | None:
        folder = find_voc(tree)
        if folder is None:
            return None
        return DataSet(
            tree.root, {split: partial(read_voc, folder, split=split, tree=tree) for split in folder.splits}, tree
        )


def find_voc(tree: Tree) -> VOCFolder | None:
    """Read all XML files of a VOC data set, or None if there is none.

    Splits come from ImageSets/Main/{train,val,trainval,test}.txt, else from names of folders.
    """
    paths = [path for path in tree.named(".xml") if _looks_like_voc(path)]
    if not paths:
        return None
    files = {path: _read_file(path) for path in paths}
    splits = _listed_splits(tree, files) or _folder_splits(tree, files.values())
    names = join_class_lists(find_class_lists(tree.root, dict.fromkeys(path.parent for path in paths)))
    return VOCFolder(
        splits, names or tuple(sorted({o.name for file in files.values() for o in file.objects if o.name}))
    )


def read_voc(folder: VOCFolder, *, split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read one split; ``difficult`` objects become crowds: neither found nor missed."""
    label_of = {name: label for label, name in enumerate(folder.names)}
    rows: list[int] = []
    objects: list[VOCObject] = []
    places: list[str] = []
    problems: list[Problem] = []
    read: list[VOCFile] = []
    absent = [file for file in folder.splits[split] if file.error and not os.path.exists(file.path)]
    problems += _tell_absent(absent, len(folder.splits[split]), rules)
    for file in folder.splits[split]:
        if file.error and not os.path.exists(file.path):
            continue
        if file.error:
            problems.append(
                Problem("error", "unreadable annotation", file.path, "", file.error, "left out; annotate it anew")
            )
            continue
        for rank, item in enumerate(file.objects):
            if not item.name:
                problems.append(
                    Problem("error", "object without a name", file.path, f"object {rank}",
                            "its <name> is missing or empty", "left out; give it the name of its class")
                )  # fmt: skip
                continue
            if item.name not in label_of:
                problems.append(
                    Problem("error", "unknown class", file.path, f"object {rank} ({item.name})",
                            f"{item.name!r} is none of the {len(label_of)} classes listed"
                            f"{same_but_for_case([item.name], label_of)}",
                            "left out; correct the name or add it to the list of classes")
                )  # fmt: skip
                continue
            rows.append(len(read))
            objects.append(item)
            places.append(f"object {rank} ({item.name})")
        read.append(file)
    images = _list_images(read, split, tree)
    rotations = np.array([item.rotation for item in objects], np.float64)
    angles = np.array([item.angle for item in objects], np.float64)
    is_radians = are_radians(angles[angles != 0])
    table = ObjectTable(
        rows=np.array(rows, np.int64),
        boxes=np.array([item.box for item in objects], np.float64).reshape(-1, 4),
        written=_WRITTEN,
        sources=np.array([item.source for item in objects], np.int8),
        angles=np.where(rotations != 0, np.deg2rad(rotations), angles if is_radians else np.deg2rad(angles)),
        angle_unit="radians" if is_radians else "degrees",
        labels=np.array([label_of[item.name] for item in objects], np.int64),
        crowd=np.array([item.is_difficult for item in objects], np.bool_),
        areas=np.full(len(objects), np.nan),
        record_of=places.__getitem__,
    )
    records, box_problems = assemble(images, table, rules=rules)
    problems += _find_unannotated(images, tree)
    data = DetectionData(records, folder.names, tuple(range(len(folder.names))), "voc", split)
    unkept = {
        "outlines": sum(item.source == OUTLINE for item in objects),
        "rotated boxes": int(np.count_nonzero(rotations) + np.count_nonzero(angles)),
        "pose, truncated, occluded, parts and attributes": sum(item.has_more for item in objects),
    }
    return Reading(data, tuple(problems + box_problems), unkept={w: count for w, count in unkept.items() if count})


def _tell_absent(files: Sequence[VOCFile], num_listed: int, rules: ReadingRules) -> list[Problem]:
    """Tell of the names in a list that have no XML file."""
    if files and rules.missing == "skip":
        return [
            Problem("warning", "missing annotations", files[0].path.parent, "",
                    f"{len(files)} of {num_listed} names have no XML file; the first: {files[0].error}",
                    "left out, as --missing skip asks")
        ]  # fmt: skip
    return [
        Problem("error", "missing annotation", file.path, "", file.error,
                "left out; put the file there, correct the list, or leave such names out by --missing skip")
        for file in files
    ]  # fmt: skip


def _find_unannotated(images: Sequence[ListedImage], tree: Tree) -> list[Problem]:
    """Tell, once, of the images that lie beside the annotated ones and have no XML file."""
    stems = {path.stem for path in tree.named(".xml")}
    folders = {image.path.parent for image in images}
    used = {image.path for image in images}  # some under another name than that of their XML file
    bare = [p for p in tree.images if p.parent in folders and p.stem not in stems and p not in used]
    if not bare:
        return []
    return [
        Problem("warning", "image without annotation", bare[0].parent, bare[0].name,
                f"{len(bare)} images have no XML file; this is the first",
                "left out; if they hold no object, give them an XML file without one")
    ]  # fmt: skip


def _looks_like_voc(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return True  # told of when it is read, as an empty file is
    root = _FIRST_TAG.search(_COMMENT.sub(b"", head.replace(b"\0", b"")))  # UTF-16 has a zero in every letter
    return not head or (root is not None and root[1] == b"annotation")  # the plural is CVAT's own layout


def _read_file(path: Path) -> VOCFile:
    try:
        check_bytes(path, _MAX_BYTES)
        root = _parse(path.read_bytes())
    except DataError as error:
        return VOCFile(path, "", 0, 0, (), error=str(error))
    except (ElementTree.ParseError, OSError) as error:
        return VOCFile(path, "", 0, 0, (), error=f"no complete XML: {error}")
    except (LookupError, ValueError) as error:
        return VOCFile(path, "", 0, 0, (), error=f"its encoding cannot be read, save it in UTF-8: {error}")
    return VOCFile(
        path=path,
        image_name=(root.findtext("filename") or "").strip(),
        width=_pixels(root.findtext("size/width")),
        height=_pixels(root.findtext("size/height")),
        objects=tuple(_read_object(item) for item in root.findall("object")),
    )


def _parse(content: bytes) -> ElementTree.Element:
    try:
        return parse_xml(content)
    except ValueError:  # expat knows UTF-8 and UTF-16, but not GBK or another code of several bytes
        declared = _ENCODING.search(content)
        if declared is None:
            raise
        return parse_xml(content.decode(declared[1].decode("ascii")))


def _read_object(item: ElementTree.Element) -> VOCObject:
    box, source, angle = _read_box(item)
    attributes = {
        (a.findtext("name") or "").strip().lower(): a.findtext("value") for a in item.findall("attributes/attribute")
    }
    rotation = _number(attributes.get("rotation")) if source == BOX else 0.0
    return VOCObject(
        name=(item.findtext("name") or "").strip(),
        box=box,
        is_difficult=is_set(item.findtext("difficult")),
        source=source,
        rotation=rotation if math.isfinite(rotation) else 0.0,
        angle=angle,
        has_more=_has_more(item) or bool(attributes.keys() - {"rotation"}),
    )


def _has_more(item: ElementTree.Element) -> bool:
    is_marked = is_set(item.findtext("truncated")) or is_set(item.findtext("occluded"))
    pose = (item.findtext("pose") or "").strip().casefold()
    return is_marked or pose not in {"", "unspecified"} or item.find("part") is not None


def _read_box(item: ElementTree.Element) -> tuple[Box, int, float]:
    """The four numbers, where they are from, and an angle."""
    x1, y1, x2, y2 = (_number(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS)
    if not any((x1, y1, x2, y2)) or not all(map(math.isfinite, (x1, y1, x2, y2))):  # none, or a tool's zeros
        for place in ("robndbox", "polygon", "bndbox"):
            element = item.find(place)
            if element is None:
                continue
            cx, cy, width, height, angle = (_number(element.findtext(key)) for key in ("cx", "cy", "w", "h", "angle"))
            if cx == cx:
                return (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2), ROTATED, angle
            if (box := box_of_points(_points(element))) != NO_BOX:
                return box, OUTLINE, 0.0
    return (x1, y1, x2, y2), BOX, 0.0


def _points(element: ElementTree.Element) -> list[float]:
    """The points of an outline: ``<x1>``, ``<y1>``, ``<x2>`` and so on, or a ``<pt>`` with ``<x>`` and ``<y>`` each."""
    pairs = [(_number(pt.findtext("x")), _number(pt.findtext("y"))) for pt in element.iter("pt")]
    given = {child.tag: _number(child.text) for child in element}
    pairs += [(x, given.get(f"y{tag[1:]}", math.nan)) for tag, x in given.items() if re.fullmatch(r"x[\w]*", tag)]
    return [value for pair in pairs for value in pair] if all(map(math.isfinite, sum(pairs, ()))) else []


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _pixels(text: str | None) -> int:
    value = _number(text)
    return int(value) if 0 < value < 2**31 else 0


def _list_images(files: Sequence[VOCFile], split: str, tree: Tree) -> list[ListedImage]:
    """The image of each file: what its own name says comes first, for <filename> goes stale when files are renamed."""
    images: dict[int, ListedImage] = {}
    by_folder: dict[Path, list[int]] = defaultdict(list)
    for row, file in enumerate(files):
        by_folder[file.path.parent].append(row)
    for folder, rows in by_folder.items():
        finder = image_finder(_image_folders(folder), tree, split)
        spellings = []
        for file in (files[row] for row in rows):
            given = [name for name in (file.image_name,) if name]
            own = file.path.stem + Path(file.image_name.replace("\\", "/")).suffix
            spellings.append([*dict.fromkeys((own, *given, file.path.stem))])
        for row, names, found in zip(rows, spellings, finder.find_all(spellings), strict=True):
            file = files[row]
            missing = finder.folders[0] / (names[0] if file.image_name else f"{file.path.stem}.jpg")
            images[row] = ListedImage(found.path or missing, row, file.width, file.height, file.path, "", found)
    return [images[row] for row in range(len(files))]


def _image_folders(folder: Path) -> list[Path]:
    """Where the images of the XML files in ``folder`` may lie, the likeliest first."""
    beside = [path for path in subfolders(folder.parent) if path.name.casefold() in IMAGE_FOLDERS]
    of_all = [path for path in subfolders(folder.parent.parent) if path.name.casefold() in IMAGE_FOLDERS]
    apart = [path for around in of_all for path in subfolders(around) if path.name.casefold() == folder.name.casefold()]
    return [*sorted(beside, key=lambda path: path.name.casefold() != "jpegimages"), *apart, folder]


def _listed_splits(tree: Tree, files: Mapping[Path, VOCFile]) -> dict[str, tuple[VOCFile, ...]]:
    """Splits by the lists in ImageSets/Main; the years of a VOCdevkit are taken together."""
    splits: dict[str, dict[Path, VOCFile]] = defaultdict(dict)
    by_root: dict[Path, list[str]] = defaultdict(list)
    for path, split in find_lists(tree):
        root = path.parent.parent if path.parent.name.casefold() == "imagesets" else path.parent.parent.parent
        if root not in by_root:
            inside = [os.fspath(file) for file in files if file.is_relative_to(root)]
            by_root[root] = inside or [os.fspath(file) for file in files]
        if split != "test":
            _ = splits[split]  # an empty list is one: no split is drawn in its place
        for name, found in read_list_of_names(path, by_root[root], root):
            xml = found.path or root / "Annotations" / f"{name}.xml"
            hint = f"; {found.fault}" if found.fault else ""
            fault = (
                f"{path} lists {name!r}, and no XML file {'of annotations ' if found.path else ''}is called so{hint}"
            )
            absent = VOCFile(xml, "", 0, 0, (), error=fault)
            splits[split].setdefault(xml, files.get(xml, absent))
    return {split: tuple(listed.values()) for split, listed in splits.items()}


def _folder_splits(tree: Tree, files: Iterable[VOCFile]) -> dict[str, tuple[VOCFile, ...]]:
    splits: dict[str, list[VOCFile]] = defaultdict(list)
    for file in files:
        splits[split_of_folder(file.path.parent, tree.root)].append(file)
    return {split: tuple(listed) for split, listed in splits.items()}
