"""COCO JSON: one file a split, boxes as x, y, width, height in pixels; file -> listed images + objects -> records.

Lin et al., "Microsoft COCO: Common Objects in Context", arXiv:1405.0312.
"""

import codecs
import gc
import json
import mmap
import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pyrafuse.base.errors import DataError
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.coco_objects import as_written, count_unkept, read_objects, spell
from pyrafuse.data.formats.coco_writing import COCO_WRITING
from pyrafuse.data.formats.foreign import recognise
from pyrafuse.data.formats.registry import FORMATS, AnnotationFormat, DataSet
from pyrafuse.data.reading.assembling import assemble
from pyrafuse.data.reading.class_groups import find_groups
from pyrafuse.data.reading.documents import read_json
from pyrafuse.data.reading.finding import image_finder
from pyrafuse.data.reading.folders import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    Tree,
    split_of_file,
    split_of_folder,
    subfolders,
)
from pyrafuse.data.reading.listed import ListedImage
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules

_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_", "._")
_NAME_KEYS = ("file_name", "coco_url", "path", "url", "image_url", "flickr_url")
_IS_OBJECT = re.compile(rb"\A(\xef\xbb\xbf)?\s*\{")
_IS_COCO = re.compile(rb'"(images|annotations)"\s*:\s*\[\s*(\{|\])')
_LISTS = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"annotations", b"categories")]


@FORMATS.register("coco")
class COCOFormat(AnnotationFormat):
    """COCO JSON, told by its lists."""

    title = "COCO JSON"
    looked_for = "COCO JSON (instances_train.json, train/_annotations.coco.json)"
    rank = 10
    set_aside = (
        "crowds (iscrowd 1)",
        "if they are single objects, set iscrowd to 0; tools write 1 for masks drawn with a brush",
    )
    writing = COCO_WRITING

    def open(self, file: Path) -> DataSet | None:
        if file.suffix.lower() != ".json" or (not _looks_like_coco(file) and not _is_damaged(file)):
            return None
        root = file.parent.parent if file.parent.name.casefold() in ANNOTATION_FOLDERS else file.parent
        split = split_of_file(file.stem) or split_of_folder(file.parent, root)
        reader = partial(_read_found, file, split, Tree(root))
        return DataSet(file, {split: reader}, unnamed=None if split else file)  # without the tree: spares a walk

    def find(self, tree: Tree) -> DataSet | None:
        files = find_coco(tree)
        if not files:
            return None
        unnamed = files.get("")
        readers = {split: partial(_read_found, file, split, tree) for split, file in files.items()}
        return DataSet(tree.root, readers, tree, unnamed if isinstance(unnamed, Path) else None)


def _read_found(file: Path | DataError, split: str, tree: Tree, rules: ReadingRules) -> Reading:
    if isinstance(file, DataError):
        raise file
    return read_coco(file, split=split, tree=tree, rules=rules)


def find_coco(tree: Tree) -> dict[str, Path | DataError]:
    """The annotation file of each split; a file that names no split has the name ``""``.

    Where several files claim one split, its error says so: whoever names the files to use needs none of them.

    An empty or damaged file with COCO's name, or with a split's beside a COCO file, is that split's: reading it fails,
    where passing over it would train on another one.
    """
    found: dict[str, list[Path]] = {}
    damaged: list[tuple[str, Path]] = []
    for path in tree.named(".json"):
        if path.name.startswith(_OTHER_TASKS):
            continue
        split = split_of_file(path.stem) or split_of_folder(path.parent, tree.root)
        is_named = path.name.startswith("instances") or path.name.endswith("_annotations.coco.json")
        if _looks_like_coco(path) or (is_named and _is_damaged(path)):
            found.setdefault(split, []).append(path)
        elif split_of_file(path.stem) and not is_named:
            damaged.append((split, path))
    folders = {path.parent for paths in found.values() for path in paths}
    for split, path in damaged:
        if split not in found and path.parent in folders and _is_damaged(path):
            found[split] = [path]
    return {split: _only_one(split, paths) for split, paths in found.items()}


def read_coco(path: Path, *, split: str, tree: Tree, rules: ReadingRules = DEFAULT_RULES) -> Reading:
    """Read the annotation file ``path``; its images are looked for beside it, and then anywhere in ``tree``.

    Category ids, gaps and all, become labels 0..K-1 in the order of the ids, numbers before texts. Of categories with
    one name (Roboflow lists a parent so) those that no object has are passed over. The ids 1, 1.0 and "1" are the same;
    results are written with the spelling that the categories and images have.

    Raises:
        DataError: If the file is missing, cut off, or no COCO annotation file.
    """
    with _no_garbage_collection():
        content = _load(path)
        used = {spell(annotation.get("category_id")) for annotation in content["annotations"]}
        names, written_ids, label_of, problems = _read_categories(content["categories"], used, path)
        used_names = {str(c.get("name")) for c in content["categories"] if spell(c.get("id")) in used}
        groups = find_groups(content["categories"], used_names)
        images, row_of, image_problems = _read_images(content["images"], path, split, tree)
        objects, object_problems = read_objects(content["annotations"], path, row_of, label_of, rules)
        unkept = count_unkept(content["annotations"])
        del content
    records, box_problems = assemble(images, objects, rules=rules)
    problems += image_problems + object_problems + box_problems
    return Reading(DetectionData(records, names, written_ids, "coco", split), tuple(problems), groups, unkept)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spare the search for cycles: among millions of new dicts it takes half of the time, and there is none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _looks_like_coco(path: Path) -> bool:
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            text = _as_ascii(content)
            return _IS_OBJECT.match(text) is not None and _IS_COCO.search(text) is not None
    except (OSError, ValueError):  # it cannot be opened, or is empty
        return False


def _as_ascii(content: bytes | mmap.mmap) -> bytes | mmap.mmap:
    """``content`` with its ASCII letters as one byte each: UTF-16, told by its byte order mark, has a zero beside."""
    is_utf_16 = content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
    return content[2:].replace(b"\0", b"") if is_utf_16 else content


def _has_all_lists(path: Path) -> bool:
    content = _as_ascii(path.read_bytes())
    return all(pattern.search(content) for pattern in _LISTS)


def _is_damaged(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return False


def _only_one(split: str, paths: Sequence[Path]) -> Path | DataError:
    if len(paths) > 1:  # beside other tasks' files, COCO's own are called so
        paths = [path for path in paths if path.name.startswith("instances")] or paths
    if len(paths) > 1:  # other tools' files have some of COCO's lists
        paths = [path for path in paths if _has_all_lists(path) and recognise(path) is None] or paths
    if len(paths) > 1:
        listed = ", ".join(str(path) for path in paths)
        return DataError(
            f"{len(paths)} COCO files for the split {split or 'without a name'}: {listed}; name the files to use "
            "as train and val (train --data.train FILE --data.val FILE)"
        )
    return paths[0]


def _load(path: Path) -> Mapping[str, list[Mapping[str, Any]]]:
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    is_whole = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in keys)
    if not is_whole and (foreign := recognise(path)):
        raise DataError(f"{path} {foreign}")
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}, not COCO annotations (an object with images, annotations and "
            "categories); is it a file of results?"
        )
    for key in keys:
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{path} has no list {key!r} of objects, which COCO annotations need; export it anew")
    return content


def _read_categories(
    categories: Sequence[Mapping[str, Any]], used: Container[int | str | None], path: Path
) -> tuple[tuple[str, ...], tuple[int | str, ...], dict[int | str, int], list[Problem]]:
    """Names in the order of their ids, the ids as they stand there, the label of each id, and what is wrong."""
    name_of: dict[int | str, str] = {}
    problems = []
    for rank, category in enumerate(categories):
        category_id = spell(category.get("id"))
        if category_id is None or category.get("name") in (None, ""):
            raise DataError(
                f"{path}, categories[{rank}] is {dict(category)}; it needs a name, and a whole number or a text as id"
            )
        if category_id in name_of:
            problems.append(
                Problem("error", "duplicate category id", path, f"categories[{rank}]",
                        f"id {category_id} of {category['name']!r} is that of {name_of[category_id]!r} too",
                        "the first one is used; give every class its own id")
            )  # fmt: skip
        name_of.setdefault(category_id, str(category["name"]))
    if not name_of:
        raise DataError(f"{path} lists no categories; a detector needs one class at least")
    counts = Counter(name_of.values())
    counts_used = Counter(name for i, name in name_of.items() if i in used)
    first = {name: i for i, name in reversed(name_of.items())}  # stands for those that have no object at all
    kept = [
        i
        for i, name in name_of.items()
        if counts[name] == 1 or i in used or (not counts_used[name] and first[name] == i)
    ]
    ids = sorted(kept, key=lambda i: (isinstance(i, str), i))
    names = tuple(name_of[i] for i in ids)
    problems += [
        Problem("error", "duplicate class name", path, "categories", f"{name!r} is the name of {count} categories",
                "give every class a name of its own")
        for name, count in Counter(names).items() if count > 1
    ]  # fmt: skip
    written = {spell(category["id"]): as_written(category["id"]) for category in reversed(categories)}
    return names, tuple(written[i] for i in ids), {i: label for label, i in enumerate(ids)}, problems


def _read_images(
    entries: Sequence[Mapping[str, Any]], path: Path, split: str, tree: Tree
) -> tuple[list[ListedImage], dict[Any, int], list[Problem]]:
    """The listed images, the rank of each id, and what is wrong."""
    kept: list[tuple[Mapping[str, Any], str, list[str]]] = []
    row_of: dict[Any, int] = {}
    problems = []
    for rank, entry in enumerate(entries):
        image_id, spellings = spell(entry.get("id")), _spellings(entry)
        if image_id is None or not spellings:
            absent = "id" if spellings else "file name"
            problems.append(
                Problem("error", f"image without {absent}", path, f"images[{rank}]", f"it is {_shorten(entry)}",
                        "left out; every image needs a file_name, and a whole number or a text as id")
            )  # fmt: skip
            continue
        if image_id in row_of:
            problems.append(
                Problem("error", "duplicate image id", path, f"images[{rank}] ({spellings[0]})",
                        f"id {image_id} is that of {kept[row_of[image_id]][1]} too",
                        "left out; give every image its own id, or its objects cannot be told apart")
            )  # fmt: skip
            continue
        row_of[image_id] = len(kept)
        kept.append((entry, spellings[0], spellings))
    finder = image_finder(_image_folders(path, split), tree, split, frozenset() if split else _other_subsets(path))
    found = finder.find_all([spellings for *_, spellings in kept])
    images = [
        ListedImage(
            path=item.path or finder.folders[0] / name,
            image_id=as_written(entry["id"]),
            width=_pixels(entry.get("width")),
            height=_pixels(entry.get("height")),
            file=path,
            record=f"image {spell(entry['id'])} ({name})",
            found=item,
        )
        for (entry, name, _), item in zip(kept, found, strict=True)
    ]
    return images, row_of, problems


def _spellings(entry: Mapping[str, Any]) -> list[str]:
    """What an image may be called: its file name, or the addresses that LVIS and others give in its place."""
    given = (entry.get(key) for key in _NAME_KEYS)
    names = [name for name in given if isinstance(name, str) and name.strip()]
    return names[:1] if entry.get("file_name") in names else names


def _shorten(entry: Mapping[str, Any]) -> str:
    text = str(dict(entry))
    return text if len(text) <= 200 else f"{text[:200]}..."


def _image_folders(path: Path, split: str) -> list[Path]:
    """Where the images of annotation file ``path`` may lie, the likeliest first."""
    words = {word.casefold() for word in re.findall(r"(?:train|valid|val|test)\w*", path.stem, re.IGNORECASE)}
    words.add(_subset_of(path))
    is_apart = path.parent.name.casefold() in ANNOTATION_FOLDERS
    folders = []
    for base in (path.parent, path.parent.parent):
        of_images = [folder for folder in subfolders(base) if folder.name.casefold() in IMAGE_FOLDERS]
        inner = [folder for around in (*of_images, base) for folder in subfolders(around)]
        named = [f for f in inner if f.name.casefold() in words or (split and split_of_folder(f, f.parent) == split)]
        if base != path.parent and not is_apart:
            named = []  # of another data set, most likely
        for folder in sorted(named, key=lambda folder: folder.name.casefold() not in words):  # train2017 before train
            folders += [folder, *(inside for inside in subfolders(folder) if inside.name.casefold() in IMAGE_FOLDERS)]
        folders += [*of_images, base]
    return [folder for folder in dict.fromkeys(folders) if not (is_apart and folder == path.parent)] or [path.parent]


def _subset_of(path: Path) -> str:
    """The subset that an annotation file is called after, in lower case: CVAT's may have any name."""
    return path.stem.removeprefix("instances_").casefold()


def _other_subsets(path: Path) -> frozenset[str]:
    """The subsets of the annotation files beside ``path``."""
    return frozenset(_subset_of(other) for other in path.parent.glob("instances_*.json")) - {_subset_of(path)}


def _pixels(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0
