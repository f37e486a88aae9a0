"""Finds the annotation format of a data set by looking at it, and reads its training and validation images."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pyrafuse.base.errors import DataError, check_between, same_but_for_case
from pyrafuse.base.members import folder_of, is_remote
from pyrafuse.base.paths import check_data, expand_user
from pyrafuse.base.printable import list_names
from pyrafuse.base.records import DetectionData
from pyrafuse.data.formats.foreign import find_foreign, recognise
from pyrafuse.data.formats.registry import DataSet, all_formats, format_of
from pyrafuse.data.formats.shapes import cached_shapes, is_shapes
from pyrafuse.data.formats.shards import open_address
from pyrafuse.data.reading.class_groups import leave_out_groups
from pyrafuse.data.reading.folders import SPLIT_WORDS, Tree
from pyrafuse.data.reading.joining import join_readings, share_classes
from pyrafuse.data.reading.passed_over import count_suffixes, find_unread, tell_unread
from pyrafuse.data.reading.problems import Problem, Reading
from pyrafuse.data.reading.rules import DEFAULT_RULES, ReadingRules


@dataclass(frozen=True)
class Splits:
    """A data set as it is trained on and validated.

    Attributes:
        train: Training images and objects.
        val: Those for validation, with the same classes in the same order.
        layout: Registered name of the annotation format.
        finding: What was found, in one sentence.
        problems: What is wrong with it; an error's image or box was left out.
    """

    train: DetectionData
    val: DetectionData
    layout: str
    finding: str
    problems: tuple[Problem, ...]


def read_splits(
    path: str | os.PathLike[str],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    train: str | None = None,
    val: str | None = None,
    rules: ReadingRules = DEFAULT_RULES,
) -> Splits:
    """Read a data set that is laid out in any of the known ways.

    Without ``train`` and ``val`` the splits of those names are taken (``valid`` and ``validation`` too; ``test`` for
    ``val`` where there is none); where there is only one split, a share of its images is drawn for validation.

    Args:
        path: A folder, a data.yaml, a COCO JSON file, the address of a folder of shards (``s3://bucket/folder``), or
            ``shapes``, ``shapes:train=400,val=100,size=256,seed=0``: generated images (a folder of that name is
            ``./shapes``).
        val_fraction: Share of the images that is drawn for validation where no split is meant for it.
        seed: Seed of that draw.
        train: The training split by its name, or a file or folder that holds it.
        val: The validation split.
        rules: How lenient reading is.

    Raises:
        DataError: If there is nothing there, no layout is recognised, an annotation file is damaged, or no image is
            left to train on. Faults of single images and boxes are `Splits.problems` instead.
    """
    found = _look(path)
    training = _read_given(found, train, rules) if train else found.read(_training_split(found), rules)
    unused = found.unnamed if training.data.split and not (train or val) else None
    held_out = _read_given(found, val, rules) if val else _read_validation(found, training.data.split, rules)
    how = ""
    training, *others = leave_out_groups([training] if held_out is None else [training, held_out])
    held_out = others[0] if others else None
    if held_out is None:
        training, held_out = _draw(training, val_fraction, seed)
        how = f" ({100 * val_fraction:g} % drawn for validation with seed {seed})"
    elif held_out.data.split == "test" and not val:
        how = " (validated on test: there is no split called val)"
    held_out = _with_classes_of(training, held_out)
    for data, what in ((training, "train on"), (held_out, "validate on")):
        if not data.data.records:
            raise DataError(f"{found.path} leaves no image to {what}{_first(data)}")
    unread = tell_unread(found.tree, (training.data, held_out.data))
    problems = (*training.problems, *held_out.problems, *unread)
    if unused is not None:
        problems += (_tell_unused(unused, found.path),)
    return Splits(
        train=training.data,
        val=held_out.data,
        layout=found.layout,
        finding=f"{'shapes (generated images)' if is_shapes(os.fspath(path)) else format_of(found.layout).title}: "
        f"{len(training.data)} training and {len(held_out.data)} validation images"
        f"{how}, {_list_names(training.data.names)}",
        problems=tuple(dict.fromkeys(problems)),  # what is wrong with both stands once
    )


def read_split(
    path: str | os.PathLike[str],
    split: str = "val",
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    rules: ReadingRules = DEFAULT_RULES,
) -> Reading:
    """Read one split by its name, for evaluation.

    ``train`` and ``val`` hold the images of `read_splits`, drawn alike where they have to be; ``test`` must be there.
    The classes are those that the split's own file lists.

    Raises:
        DataError: On the same faults as `read_splits`, and if there is no such split; the message lists those that
            there are.
    """
    split = SPLIT_WORDS.get(split, split)
    found = _look(path)
    if split in found.readers:
        reading = found.read(split, rules)
        if reading.data.records:
            reading = leave_out_groups([reading])[0]
            return replace(reading, problems=(*reading.problems, *tell_unread(found.tree, [reading.data])))
        raise DataError(f"the split {split} of {found.path} holds no image that can be used{_first(reading)}")
    if split in {"train", "val"}:
        splits = read_splits(path, val_fraction=val_fraction, seed=seed, rules=rules)
        return Reading(splits.val if split == "val" else splits.train, splits.problems)
    raise DataError(f"{found.path} has no split {split!r}; it has {_list_splits(found)}")


def read_all(path: str | os.PathLike[str], *, rules: ReadingRules = DEFAULT_RULES) -> tuple[Reading, ...]:
    """Read every split, training first, under one list of classes: those of the first one, and what the others add.

    A split called trainval is left out where others hold all of its images. Splits that are called otherwise than
    `SPLIT_WORDS` has it are put together, as one without a name.

    Raises:
        DataError: On the same faults as `read_splits`, and if no image is left.
    """
    found = _look(path)
    readings = leave_out_groups([found.read(split, rules) for split in found.readers])
    order = [*dict.fromkeys(SPLIT_WORDS.values())]
    known = sorted(
        (reading for reading in readings if reading.data.split in order), key=lambda r: order.index(r.data.split)
    )
    others = [reading for reading in readings if reading.data.split not in order]
    of_parts = {record.path for r in known if r.data.split != "trainval" for record in r.data.records}
    known = [r for r in known if r.data.split != "trainval" or any(x.path not in of_parts for x in r.data.records)]
    if others:
        joined = join_readings(others)
        known.append(replace(joined, data=replace(joined.data, split="")))
    filled = [reading for reading in known if reading.data.records]
    if not filled:
        raise DataError(f"{found.path} leaves no image{_first(readings[0]) if readings else ''}")
    return tuple(share_classes(filled))


def _look(path: str | os.PathLike[str]) -> DataSet:
    """The data set at ``path``, of the first format that recognises it."""
    if isinstance(path, str) and is_shapes(path):
        path = cached_shapes(path)
    if isinstance(path, str) and is_remote(path):
        return replace(open_address(path), layout="shards")
    check_data(os.fspath(path))
    path = expand_user(path)
    if path.is_dir():
        return _look_into(path)
    for name, each in all_formats():
        if found := each.open(path):
            return replace(found, layout=name)
    if foreign := recognise(path):
        raise DataError(f"{path} {foreign}")
    raise DataError(f"{path} is no data set; name its folder, its data.yaml or its COCO JSON file")


def _look_into(folder: Path) -> DataSet:
    tree, formats = Tree(folder), all_formats()
    looks = [(name, each.find_description) for name, each in formats] + [(name, each.find) for name, each in formats]
    for name, look in looks:
        if found := look(tree):
            return replace(found, layout=name)
    held = f"{len(tree.files)} files, {len(tree.images)} of them images" if tree.files else "nothing"
    if unread := [path for paths in find_unread(tree.files).values() for path in paths]:
        held += f" and {len(unread)} pictures that are not read: {count_suffixes(unread)}"
    if foreign := find_foreign(tree):
        raise DataError(f"no data set in {folder}: {foreign}")
    above = folder.absolute().parent
    hint = f". If its annotations lie in {above}, name that folder" if tree.files and tree.images == tree.files else ""
    looked_for = "; ".join(each.looked_for for _, each in formats)
    raise DataError(f"no data set in {folder}, which holds {held}; looked for {looked_for}{hint}")


def _training_split(found: DataSet) -> str:
    for split in ("train", "trainval", ""):
        if split in found.readers:
            return split
    raise DataError(
        f"{found.path} has {_list_splits(found)}, and none called train; add the training split, or say which one is "
        "for training (train --data.train NAME)"
    )


def _read_validation(found: DataSet, training_split: str, rules: ReadingRules) -> Reading | None:
    """The split meant for validation, or None if one has to be drawn."""
    splits = ("test",) if training_split == "trainval" else ("val", "test")  # trainval holds val
    for split in splits:
        if split in found.readers and split != training_split:
            return found.read(split, rules)
    return None


def _read_given(found: DataSet, given: str, rules: ReadingRules) -> Reading:
    """The split called ``given``, or the one that lies there."""
    split = SPLIT_WORDS.get(given, given)
    if split in found.readers:
        return found.read(split, rules)
    base = found.path if found.path.is_dir() else found.path.parent
    for path in (given,) if is_remote(given) else (base / given, Path(given)):
        if isinstance(path, str) or path.exists():
            other = _look(path)
            if len(other.readers) == 1:
                return other.read(next(iter(other.readers)), rules)
            raise DataError(f"{path} has {_list_splits(other)}; name a file or folder with one split")
    raise DataError(f"{found.path} has no split {given!r}, nor is there such a file; it has {_list_splits(found)}")


def _draw(reading: Reading, val_fraction: float, seed: int) -> tuple[Reading, Reading]:
    """Split one split in two; the problems stay with the first.

    Each part holds an object where two images do: without one there is nothing to learn or to measure.
    """
    records = reading.data.records
    check_between("seed", seed, 0)
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}; it must lie between 0 and 1")
    if len(records) == 1:
        raise DataError(
            f"{records[0].path} is the only usable image; training and validation need one each{_first(reading)}"
        )
    order = np.random.default_rng(seed).permutation(len(records))
    num_val = min(max(round(val_fraction * len(records)), 1), len(records) - 1) if records else 0
    is_val = np.zeros(len(records), bool)
    is_val[order[:num_val]] = True
    filled = order[[not records[i].crowd.all() for i in order]]
    if len(filled) > 1 and len(set(is_val[filled].tolist())) == 1:
        exchanged = [filled[0], next(i for i in order if is_val[i] != is_val[filled[0]])]
        is_val[exchanged] = ~is_val[exchanged]

    def part(split: str, is_wanted: np.ndarray) -> DetectionData:
        return replace(reading.data, records=tuple(records[i] for i in np.flatnonzero(is_wanted).tolist()), split=split)

    return Reading(part("train", ~is_val), reading.problems), Reading(part("val", is_val), ())


def _with_classes_of(training: Reading, held_out: Reading) -> Reading:
    """The validation split with the labels of the training split; classes are the same if their names are."""
    names, own = training.data.names, held_out.data.names
    if own == names and held_out.data.category_ids == training.data.category_ids:
        return held_out
    place = folder_of(held_out.data.records[0].path) if held_out.data.records else Path()
    problems = list(held_out.problems)
    if unknown := [name for name in own if name not in names]:
        problems.append(
            Problem("error", "class without training images", place, f"split {held_out.data.split}",
                    f"{_list_names(tuple(unknown))} that the training split does not know"
                    f"{same_but_for_case(unknown, names)}",
                    "their objects are left out; list the same classes in both splits")
        )  # fmt: skip
    if absent := [name for name in names if name not in own]:
        problems.append(
            Problem("warning", "class without validation images", place, f"split {held_out.data.split}",
                    f"{_list_names(tuple(absent))} that only the training split knows",
                    "they are not measured; list the same classes in both splits")
        )  # fmt: skip
    label_of = np.array([names.index(name) if name in names else -1 for name in own], np.int64)
    records = []
    for record in held_out.data.records:
        labels = label_of[record.labels]
        kept = labels >= 0
        records.append(
            replace(
                record, boxes=record.boxes[kept], labels=labels[kept], crowd=record.crowd[kept],
                areas=record.areas[kept],
            )
        )  # fmt: skip
    id_of = dict(zip(own, held_out.data.category_ids, strict=True))
    known = [*held_out.data.category_ids, *training.data.category_ids]
    free = max((i for i in known if isinstance(i, int)), default=0)
    ids = tuple(id_of[name] if name in id_of else free + 1 + rank for rank, name in enumerate(names))
    return Reading(replace(held_out.data, records=tuple(records), names=names, category_ids=ids), tuple(problems))


def _tell_unused(file: Path, root: Path) -> Problem:
    return Problem(
        "note", "annotations of no split", file, "", "its name speaks of no split, and there are those of train",
        f"not used; to train on it, --data.train {file.relative_to(root).as_posix()}",
    )  # fmt: skip


def _first(reading: Reading) -> str:
    first = min(reading.problems, key=lambda problem: problem.severity != "error", default=None)
    return f"; first of {len(reading.problems)} problems: {first}" if first else ""


def _list_names(names: tuple[str, ...]) -> str:
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'}: {list_names(names, most=10)}"


def _list_splits(found: DataSet) -> str:
    return ", ".join(split or "one without a name" for split in found.readers)
