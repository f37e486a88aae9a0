"""Pascal VOC: an XML file an image, corners 1-based and inclusive; files -> listed images + objects -> records.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pyrafuse.core.records import DetectionData
from pyrafuse.data.assembling import ListedImage, ObjectTable, assemble
from pyrafuse.data.folders import SPLIT_WORDS, ImageFinder, Tree, read_class_names, read_text, split_of_folder
from pyrafuse.data.options import DEFAULT_OPTIONS, ReadOptions
from pyrafuse.data.problems import Problem, Reading

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_HEAD_BYTES = 1 << 14
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_FIRST_TAG = re.compile(rb"<([a-zA-Z_][^\s/>]*)")
_ENCODING = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([\w.-]+)""")


@dataclass(frozen=True)
class VOCObject:
    """An object as its XML has it: class, 0-based xyxy in pixels (NaN where unreadable), difficult or not."""

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


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


def find_voc(tree: Tree) -> VOCFolder | None:
    """Read all XML files of a VOC data set, or None if there is none.

    Splits come from ImageSets/Main/{train,val,trainval,test}.txt, else from names of folders.
    """
    paths = [path for path in tree.named(".xml") if _looks_like_voc(path)]
    if not paths:
        return None
    files = {path: _read_file(path) for path in paths}
    splits = _listed_splits(tree, files) or _folder_splits(tree, files.values())
    names = read_class_names(tree.root)
    return VOCFolder(
        splits, names or tuple(sorted({o.name for file in files.values() for o in file.objects if o.name}))
    )


def read_voc(folder: VOCFolder, *, split: str, tree: Tree, options: ReadOptions = DEFAULT_OPTIONS) -> Reading:
    """Read one split; ``difficult`` objects become crowds: neither found nor missed."""
    label_of = {name: label for label, name in enumerate(folder.names)}
    finders: dict[Path, ImageFinder] = {}
    images: list[ListedImage] = []
    rows: list[int] = []
    objects: list[VOCObject] = []
    places: list[str] = []
    problems: list[Problem] = []
    for file in folder.splits[split]:
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
                            f"{item.name!r} is none of the {len(label_of)} classes listed",
                            "left out; correct the name or add it to the list of classes")
                )  # fmt: skip
                continue
            rows.append(len(images))
            objects.append(item)
            places.append(f"object {rank} ({item.name})")
        images.append(_listed_image(file, len(images), finders, tree))
    table = ObjectTable(
        rows=np.array(rows, np.int64),
        boxes=np.array([item.box for item in objects], np.float64).reshape(-1, 4),
        labels=np.array([label_of[item.name] for item in objects], np.int64),
        crowd=np.array([item.is_difficult for item in objects], np.bool_),
        areas=np.full(len(objects), np.nan),
        record_of=places.__getitem__,
    )
    records, box_problems = assemble(images, table, options=options)
    problems += _find_unannotated(images, tree)
    data = DetectionData(records, folder.names, tuple(range(len(folder.names))), "voc", split)
    return Reading(data, tuple(problems + box_problems))


def _find_unannotated(images: Sequence[ListedImage], tree: Tree) -> list[Problem]:
    """Tell, once, of the images that lie beside the annotated ones and have no XML file."""
    stems = {path.stem for path in tree.named(".xml")}
    folders = {image.path.parent for image in images}
    bare = [path for path in tree.images if path.parent in folders and path.stem not in stems]
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
        root = _parse(path.read_bytes())
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
        return ElementTree.fromstring(content)
    except ValueError:  # expat knows UTF-8 and UTF-16, but not GBK or another code of several bytes
        declared = _ENCODING.search(content)
        if declared is None:
            raise
        return ElementTree.fromstring(content.decode(declared[1].decode("ascii")))


def _read_object(item: ElementTree.Element) -> VOCObject:
    x1, y1, x2, y2 = (_number(item.findtext(f"bndbox/{corner}")) for corner in _CORNERS)
    return VOCObject(
        name=(item.findtext("name") or "").strip(),
        box=(x1 - 1, y1 - 1, x2, y2),  # the last pixel is inside
        is_difficult=_number(item.findtext("difficult")) == 1,
    )


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _pixels(text: str | None) -> int:
    value = _number(text)
    return int(value) if 0 < value < 2**31 else 0


def _listed_image(file: VOCFile, image_id: int, finders: dict[Path, ImageFinder], tree: Tree) -> ListedImage:
    folder = file.path.parent
    if folder not in finders:
        finders[folder] = ImageFinder(_image_folders(folder), tree)
    finder = finders[folder]
    # the XML's own name first: <filename> goes stale when files are renamed
    own = file.path.stem + Path(file.image_name).suffix
    path = next(filter(None, map(finder.find, filter(None, (own, file.image_name, file.path.stem)))), None)
    missing = finder.folders[0] / (file.image_name or f"{file.path.stem}.jpg")
    return ListedImage(path or missing, image_id, file.width, file.height, file.path, "")


def _image_folders(folder: Path) -> list[Path]:
    """Where the images of the XML files in ``folder`` may lie, the likeliest first."""
    beside = [folder.parent / name for name in ("JPEGImages", "images", "Images")]
    apart = [folder.parent.parent / name / folder.name for name in ("JPEGImages", "images", "Images")]
    return [path for path in (*beside, *apart) if path.is_dir()] + [folder]


def _listed_splits(tree: Tree, files: Mapping[Path, VOCFile]) -> dict[str, tuple[VOCFile, ...]]:
    """Splits by the lists in ImageSets/Main; the years of a VOCdevkit are taken together."""
    splits: dict[str, list[VOCFile]] = defaultdict(list)
    for path in tree.named(".txt"):
        if path.parent.name != "Main" or path.stem not in SPLIT_WORDS:
            continue
        annotations = path.parent.parent.parent / "Annotations"
        for line in read_text(path).splitlines():
            words = line.split()
            if words:
                xml = annotations / f"{words[0]}.xml"
                absent = VOCFile(xml, "", 0, 0, (), error=f"{path.name} lists {words[0]}, there is no such XML file")
                splits[SPLIT_WORDS[path.stem]].append(files.get(xml, absent))
    return {split: tuple(listed) for split, listed in splits.items()}


def _folder_splits(tree: Tree, files: Iterable[VOCFile]) -> dict[str, tuple[VOCFile, ...]]:
    splits: dict[str, list[VOCFile]] = defaultdict(list)
    for file in files:
        splits[split_of_folder(file.path.parent, tree.root)].append(file)
    return {split: tuple(listed) for split, listed in splits.items()}
